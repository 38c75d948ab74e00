"""Layer normalisation over channels, modulation by a condition and SiLU, as one operator that keeps its input alone.

    y = n(x) * (1 + a) (1 + l) + b (1 + l)        n: LayerNorm with weight and bias; a, b: modulation; l: latent_scale

and SiLU of y where asked for. Everything inside is in float32 or wider, whatever the features' type; the backward pass
normalises again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.ops.gpu import norms
from infdiff.ops.registration import operator

_EPSILON = 1e-5


def modulated_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None = None,
    latent_scale: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """The specification of `modulated_norm`. Differentiable by PyTorch's own rules."""
    wide = _wide(x)
    own = weight.to(wide.dtype), bias.to(wide.dtype)
    return modulated_norm_stepwise(wide, *own, modulation, latent_scale, silu).to(x.dtype)


def modulated_norm_stepwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None = None,
    latent_scale: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """The same by PyTorch's operators in the type of x, rounded to it after each: the fastest way on CPUs."""
    y = F.layer_norm(x, (x.shape[-1],), weight, bias, _EPSILON)
    if modulation is not None:
        scale, shift = modulation.unsqueeze(1).to(x.dtype).chunk(2, dim=-1)
        scale = 1 + scale
        if latent_scale is not None:
            factor = 1 + latent_scale.unsqueeze(1).to(x.dtype)
            scale, shift = scale * factor, shift * factor
        y = torch.addcmul(shift, y, scale)
    return F.silu(y) if silu else y


def modulated_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None = None,
    latent_scale: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """Features (B, L, C), normalised over C, modulated and activated: in the type of x.

    weight and bias (C,); modulation (B, 2 C): scale, then shift, or None; latent_scale (B, C), with a modulation alone.
    silu: apply SiLU. Autograd keeps the arguments and nothing else. Raises ValueError for shapes that do not fit.
    """
    channels = x.shape[-1]
    shapes = {"modulation": (modulation, 2 * channels), "latent_scale": (latent_scale, channels)}
    for name, (given, length) in shapes.items():
        if given is not None and given.shape != (x.shape[0], length):
            raise ValueError(f"{name} {tuple(given.shape)} for x {tuple(x.shape)}: want {(x.shape[0], length)}")
    if modulation is None and latent_scale is not None:
        raise ValueError("latent_scale without a modulation")
    result: Tensor = _forward(x, weight, bias, modulation, latent_scale, silu)
    return result


@operator("modulated_norm")
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor | None, latent_scale: Tensor | None, silu: bool
) -> Tensor:
    if norms.serves(x, weight, bias, modulation, latent_scale):
        return norms.modulated_norm(x, weight, bias, modulation, latent_scale, _EPSILON, silu)[0]
    return modulated_norm_ref(x, weight, bias, modulation, latent_scale, silu).contiguous()


@_forward.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape)


@operator("modulated_norm_backward")
def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    latent_scale: Tensor | None,
    silu: bool,
    passed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of all tensors; empty for those that are not there. passed: added to that of x."""
    if norms.serves(x, weight, bias, modulation, latent_scale):
        return norms.modulated_norm_backward(grad, x, weight, bias, modulation, latent_scale, _EPSILON, silu, passed)
    wide, channels = _wide(x).contiguous(), [x.shape[-1]]
    weight, bias = weight.to(wide.dtype), bias.to(wide.dtype)
    normed, mean, inverse_std = torch.native_layer_norm(wide, channels, weight, bias, _EPSILON)
    m = _modulation(modulation, latent_scale, wide.dtype)
    gradient = grad.to(wide.dtype)
    if silu:
        y = normed if m is None else torch.addcmul(m.shift * m.factor, normed, m.scale * m.factor)
        gradient = torch.ops.aten.silu_backward(gradient, y)
    to_modulation, to_latent = x.new_empty(0), x.new_empty(0)
    if m is not None:
        to_scale, to_shift = (gradient * normed).sum(1, keepdim=True), gradient.sum(1, keepdim=True)
        assert modulation is not None
        to_modulation = torch.cat([to_scale * m.factor, to_shift * m.factor], dim=-1).squeeze(1).to(modulation.dtype)
        if latent_scale is not None:
            to_latent = (to_scale * m.scale + to_shift * m.shift).squeeze(1).to(latent_scale.dtype)
        gradient = gradient * (m.scale * m.factor)
    to_x, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
        gradient.contiguous(), wide, channels, mean, inverse_std, weight, bias, [True, True, True]
    )
    if passed is not None:
        to_x = to_x + passed
    return to_x.to(x.dtype), to_weight, to_bias, to_modulation, to_latent


@_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    latent_scale: Tensor | None,
    silu: bool,
    passed: Tensor | None = None,
) -> tuple[Tensor, ...]:
    of = [x.new_empty(0) if given is None else given.new_empty(given.shape) for given in (modulation, latent_scale)]
    wide = torch.promote_types(x.dtype, torch.float32)
    own = (x.new_empty(x.shape), weight.new_empty(weight.shape, dtype=wide), bias.new_empty(bias.shape, dtype=wide))
    return (*own, *of)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, modulation, latent_scale = ctx.saved_tensors
    gradients = _backward(grad, x, weight, bias, modulation, latent_scale, ctx.silu)
    return *_as_arguments(gradients, weight, bias, (modulation, latent_scale)), None


def _as_arguments(
    gradients: Sequence[Tensor], weight: Tensor, bias: Tensor, condition: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients in the types of weight and bias; None for parts of the condition that are not there."""
    to_x, to_weight, to_bias, *to_condition = gradients
    others = (None if t is None else g for t, g in zip(condition, to_condition, strict=True))
    return to_x, to_weight.to(weight.dtype), to_bias.to(bias.dtype), *others


_forward.register_autograd(_differentiate, setup_context=_remember)


def modulated_norm_passing(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None = None,
    latent_scale: Tensor | None = None,
    silu: bool = False,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`modulated_norm` of x + added, and that sum itself, for a residual connection; added: None for x alone.

    The gradient that comes back through the sum is added to the norm's own in the same pass.
    """
    if added is not None and (added.dtype, added.shape) == (x.dtype, x.shape):
        normed, total = _forward_of_sum(x, added, weight, bias, modulation, latent_scale, silu)
        return normed, total
    total = x if added is None else x + added
    if torch.compiler.is_compiling():
        return modulated_norm(total, weight, bias, modulation, latent_scale, silu), total
    normed, total = _Passing.apply(total, weight, bias, modulation, latent_scale, silu)  # type: ignore[no-untyped-call]
    return normed, total


@operator("modulated_norm_of_sum")
def _forward_of_sum(
    x: Tensor,
    added: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    latent_scale: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    if norms.serves(x, weight, bias, modulation, latent_scale):
        return norms.modulated_norm(x, weight, bias, modulation, latent_scale, _EPSILON, silu, added)
    total = (x + added).contiguous()
    return modulated_norm_ref(total, weight, bias, modulation, latent_scale, silu).contiguous(), total


@_forward_of_sum.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _remember_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, *coefficients, ctx.silu = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *coefficients)


def _differentiate_sum(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Tensor | None, ...]:
    to_total, *others = _differentiate_passing(ctx, grad, passed)
    return to_total, to_total, *others


def _differentiate_passing(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients from those of the norm and of the sum; None where nothing reads the one."""
    if grad is None:
        return passed, *[None] * 5
    total, weight, bias, *condition = ctx.saved_tensors
    gradients = _backward(grad, total, weight, bias, *condition, ctx.silu, passed)
    return *_as_arguments(gradients, weight, bias, condition), None


_forward_of_sum.register_autograd(_differentiate_sum, setup_context=_remember_sum)


class _Passing(torch.autograd.Function):
    """The norm of x, and x: an operator may not return what it was given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        *coefficients, ctx.silu = others
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *coefficients)
        return _forward(x, *others), x

    backward = staticmethod(_differentiate_passing)


class _Modulation(NamedTuple):
    """(B, 1, C) each: 1 + a, b and 1 + l."""

    scale: Tensor
    shift: Tensor
    factor: Tensor


def _modulation(modulation: Tensor | None, latent_scale: Tensor | None, dtype: torch.dtype) -> _Modulation | None:
    if modulation is None:
        return None
    scale, shift = modulation.unsqueeze(1).to(dtype).chunk(2, dim=-1)
    factor = torch.ones_like(scale) if latent_scale is None else 1 + latent_scale.unsqueeze(1).to(dtype)
    return _Modulation(1 + scale, shift, factor)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

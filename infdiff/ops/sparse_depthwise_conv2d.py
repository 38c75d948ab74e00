"""Sparse depthwise integral operator (∞-Diff Eq. 16) on pixel subsets, normalised by the points present.

    out(c) = k^2 * sum_y kappa(y - c) v(y) / sum_y chi(y - c) + bias        over the points y present

kappa is the tent interpolant of the k x k taps (ops/resize_kernel.py), chi the same with every tap 1. Taps are in
`conv2d`'s order: tap (i, j) multiplies the pixel at offset (i - (k-1)/2, j - (k-1)/2).

The operator is linear in the features and in the taps. Its adjoint in the features is the same sum with the kernel
rotated by 180 degrees and the normaliser applied first; its adjoint in the taps correlates features and gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infdiff.ops.arguments import check_convolution, check_same_device
from infdiff.ops.convolution_routes import ROUTES, Wanted
from infdiff.ops.lattice_index import lattice_index_ref
from infdiff.ops.point_set import Points
from infdiff.ops.registration import autocast, operator
from infdiff.ops.resize_kernel import resize_kernel_ref
from infdiff.ops.routing import choose_route
from infdiff.ops.tap_by_tap import tap_by_tap


def sparse_depthwise_conv2d_ref(
    features: Tensor, taps: Tensor, points: Points, backend: str = "auto", bias: Tensor | None = None
) -> Tensor:
    """The specification of `sparse_depthwise_conv2d`, written out tap by tap over the lattice index.

    Reads the points' ids, size and scale alone, and knows one route. Differentiable by PyTorch's own rules.
    """
    ids, size, scale = points[:3]
    taps = taps.to(features.dtype)
    index = lattice_index_ref(ids, size)
    kappa, chi = resize_kernel_ref(taps[:, 0], scale), resize_kernel_ref(torch.ones_like(taps[0, 0]), scale)
    total = tap_by_tap(features, kappa, ids, index, size)
    present = features.new_ones(*ids.shape, 1)
    count = tap_by_tap(present, chi.unsqueeze(0), ids, index, size)
    out = (taps.shape[-1] ** 2 * total / count).to(features.dtype)
    return out if bias is None else out + bias.to(out.dtype)


def sparse_depthwise_conv2d(
    features: Tensor, taps: Tensor, points: Points, backend: str = "auto", bias: Tensor | None = None
) -> Tensor:
    """Sparse depthwise convolution of features (B, L, C) at points: (B, L, C).

    taps (C, 1, k, k) with k odd, bias (C,) or None; features of any floating type. The result has the features' type
    (autocast's, where it is on), and sums are in float32 or wider. Differentiable in features, taps and bias; the
    gradients are the same bits in every run. backend: "auto", "lattice", "torchsparse" or "dense"; the numbers are the
    same for all.

    Raises ValueError naming the argument that does not fit.
    """
    features, taps = autocast(features, taps)
    check_convolution(features, taps, points, backend, depthwise=True)
    _check_bias(bias, features)
    result: Tensor = _forward(features, taps, *points, backend, bias)
    return result


def sparse_depthwise_conv2d_passing(
    features: Tensor, taps: Tensor, points: Points, backend: str = "auto", bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`sparse_depthwise_conv2d`, and the features themselves, for a residual connection.

    The gradient that comes back through the features is added to the convolution's own in the same pass.
    """
    own, own_taps = autocast(features, taps)
    if torch.compiler.is_compiling() or own is not features:
        return sparse_depthwise_conv2d(features, taps, points, backend, bias), features
    check_convolution(features, own_taps, points, backend, depthwise=True)
    _check_bias(bias, features)
    result, same = _Passing.apply(features, own_taps, *points, backend, bias)  # type: ignore[no-untyped-call]
    return result, same


def _check_bias(bias: Tensor | None, features: Tensor) -> None:
    if bias is not None and bias.shape != features.shape[-1:]:
        raise ValueError(f"bias {tuple(bias.shape)}: want {tuple(features.shape[-1:])}")
    check_same_device(features, bias=bias)


# `Points` as PyTorch's schemas can say it, field by field.
_POINTS = (
    "Tensor ids, SymInt[] size, float[] scale, Tensor? index, Tensor inverse_count, Tensor? by_point, Tensor? by_offset"
)


@operator("sparse_depthwise_conv2d", f"(Tensor features, Tensor taps, {_POINTS}, str backend, Tensor? bias) -> Tensor")
def _forward(features: Tensor, taps: Tensor, *flat: Any) -> Tensor:
    points, backend, bias = _unflatten(flat)
    name = choose_route(features, points.size, taps.shape[-1], points.scale, backend).name
    return ROUTES[name].convolve(features, taps, points, bias)


_forward.register_fake(lambda features, *_: _like(features))


@operator(
    "sparse_depthwise_conv2d_backward",
    f"(Tensor grad, Tensor features, Tensor taps, {_POINTS}, str backend, bool to_features, bool to_taps, bool to_bias,"
    " Tensor? passed) -> (Tensor, Tensor, Tensor)",
)
def _backward(grad: Tensor, features: Tensor, taps: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to features, taps and bias; an empty tensor for one that was not requested.

    passed: added to the one to the features. That to the bias is of float32 or wider.
    """
    points, backend, *wanted = _unflatten(flat)
    route = ROUTES[choose_route(features, points.size, taps.shape[-1], points.scale, backend).name]
    for_features, for_taps, for_bias = route.gradients(grad, features, taps, points, Wanted(*wanted))
    wide = torch.promote_types(features.dtype, torch.float32)
    return (
        features.new_empty(0) if for_features is None else for_features,
        taps.new_empty(0) if for_taps is None else for_taps.to(taps.dtype),
        features.new_empty(0, dtype=wide) if for_bias is None else for_bias.to(wide),
    )


@_backward.register_fake
def _(grad: Tensor, features: Tensor, taps: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    to_features, to_taps, to_bias, _ = others[-4:]
    wide = torch.promote_types(features.dtype, torch.float32)
    return (
        _like(features) if to_features else features.new_empty(0),
        _like(taps) if to_taps else taps.new_empty(0),
        features.new_empty(features.shape[-1] if to_bias else 0, dtype=wide),
    )


def _unflatten(flat: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's last arguments, with those of `_POINTS` as `Points` again."""
    ids, size, scale, *tensors = flat[: len(Points._fields)]
    return Points(ids, (size[0], size[1]), (scale[0], scale[1]), *tensors), *flat[len(Points._fields) :]


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, taps, ids, ctx.size, ctx.scale, *tensors, ctx.backend, bias = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(features, taps, ids, *tensors)


def _differentiate(ctx: Any, grad: Tensor, passed: Tensor | None = None) -> tuple[Tensor | None, ...]:
    features, taps, ids, *tensors = ctx.saved_tensors
    to_features, to_taps, *_, to_bias = ctx.needs_input_grad
    points = Points(ids, ctx.size, ctx.scale, *tensors)
    needs = to_features, to_taps, to_bias
    gradients = _backward(grad, features, taps, *points, ctx.backend, *needs, passed)
    for_features, for_taps, for_bias = (g if needed else None for g, needed in zip(gradients, needs, strict=True))
    for_bias = None if for_bias is None else for_bias.to(ctx.bias_dtype)
    return for_features, for_taps, *[None] * (len(points) + 1), for_bias


_forward.register_autograd(_differentiate, setup_context=_remember)


class _Passing(torch.autograd.Function):
    """The convolution of features, and the features: an operator may not return what it was given."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        _remember(ctx, (features, *others), features)
        return _forward(features, *others), features

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return passed, *[None] * (len(Points._fields) + 3)
        return _differentiate(ctx, grad, passed)

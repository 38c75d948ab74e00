"""Reconstruction guidance (Ho et al. 2022b; ∞-Diff section 5): sampling that keeps what is known of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from infdiff.diffusion.process import Denoiser
from infdiff.diffusion.samplers import estimate_factors

_SMALLEST = 1e-20


def guided(
    denoise: Denoiser[int],
    measure: Callable[[Tensor], Tensor],
    known: Tensor,
    weight: float = 1.0,
    smooth: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    last: tuple[int, Tensor] | None = None,
    fixed: Mapping[int, float] | None = None,
) -> Denoiser[int]:
    """A denoiser whose estimate moves against the gradient of ||measure(estimate) - known||^2 in x_t.

    measure: linear, images (B, C, H, W) -> whatever `known` is, (B, ...) or (1, ...); a mask, or a smaller size. The
    gradient runs through the network, so that it says what the unknown parts of the image have to do with the known
    ones. The step's length is the one that lowers the error most, times weight: between 0 and 2 the error never grows.
    smooth: for states T x, T applied twice, which makes the gradient that of the space they live in: a mask's edges and
    a small image's pixels leave no trace in it. last: a time, and what is known there instead, for a denoiser whose
    last estimate is not mollified. fixed: the step's length at each time, instead of the best one: see `fixed_lengths`.
    """

    def estimate(x: Tensor, t: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            image = denoise(x, t)
            error = measure(image) - (last[1] if last is not None and t == last[0] else known)
            (gradient,) = torch.autograd.grad(error.square().sum(), x)
        error = error.detach()
        direction = smooth(gradient)
        if fixed is not None:
            return image.detach() - fixed[t] * direction
        change = measure(direction)
        length = weight * _per_image(error * change) / _per_image(change.square()).clamp(min=_SMALLEST)
        return image.detach() - length.view(-1, *[1] * (x.dim() - 1)) * direction

    return estimate


def fixed_lengths(weight: float, times: Sequence[int], alpha_bar: Tensor) -> dict[int, float]:
    """Lengths at which a step of `ddpm` moves x_{t-1} by -weight times the gradient (∞-Diff section 5).

    times: those of the sampler. x_{t-1} holds the estimate with a factor, which they undo.
    """
    return {t: weight / factor for t, factor in zip(times, estimate_factors(times, alpha_bar), strict=False)}


def _per_image(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)

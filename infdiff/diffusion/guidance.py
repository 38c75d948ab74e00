"""Reconstruction guidance (Ho et al. 2022b; ∞-Diff section 5): sampling that keeps what is known of the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.diffusion.process import Denoiser

_SMALLEST = 1e-20


def guided(
    denoise: Denoiser[int],
    measure: Callable[[Tensor], Tensor],
    known: Tensor,
    weight: float = 1.0,
    smooth: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    last: tuple[int, Tensor] | None = None,
) -> Denoiser[int]:
    """A denoiser whose estimate moves against the gradient of ||measure(estimate) - known||^2 in x_t.

    measure: linear, images (B, C, H, W) -> whatever `known` is, (B, ...) or (1, ...); a mask, or a smaller size. The
    gradient runs through the network, so that it says what the unknown parts of the image have to do with the known
    ones. The step's length is the one that lowers the error most, times weight: between 0 and 2 the error never grows.
    smooth: for states T x, T applied twice, which makes the gradient that of the space they live in: a mask's edges and
    a small image's pixels leave no trace in it. last: a time, and what is known there instead, for a denoiser whose
    last estimate is not mollified.
    """

    def estimate(x: Tensor, t: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            image = denoise(x, t)
            error = measure(image) - (last[1] if last is not None and t == last[0] else known)
            (gradient,) = torch.autograd.grad(error.square().sum(), x)
        error = error.detach()
        direction = smooth(gradient)
        change = measure(direction)
        length = weight * _per_image(error * change) / _per_image(change.square()).clamp(min=_SMALLEST)
        return image.detach() - length.view(-1, *[1] * (x.dim() - 1)) * direction

    return estimate


def _per_image(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)

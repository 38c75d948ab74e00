"""Reconstruction guidance (Ho et al. 2022b; ∞-Diff section 5): sampling that keeps what is known of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from infdiff.diffusion.process import Denoiser
from infdiff.diffusion.residuals import conjugate_residuals
from infdiff.diffusion.samplers import estimate_factors


def guided(
    denoise: Denoiser[int],
    measure: Callable[[Tensor], Tensor],
    known: Tensor,
    weight: float = 1.0,
    smooth: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    last: tuple[int, Callable[[Tensor], Tensor], Tensor] | None = None,
    fixed: Mapping[int, float] | None = None,
    iterations: int = 1,
    noise: Callable[[int], float] = lambda t: 0.0,
    linear: bool = True,
) -> Denoiser[int]:
    """A denoiser whose estimate moves against the gradient of ||measure(estimate) - known||^2 in x_t.

    measure: images (B, C, H, W) -> whatever `known` is, (B, ...) or (1, ...); a mask, or a smaller size. The
    gradient runs through the network, so that it says what the unknown parts of the image have to do with the known
    ones. The step's length is the one that lowers the error most, times weight: between 0 and 2 the error never grows.
    smooth: for states T x, T applied twice, which makes the gradient that of the space they live in: a mask's edges and
    a small image's pixels leave no trace in it. last: a time, and what measures and is known there instead, for a
    denoiser whose last estimate is not mollified. fixed: the step's length at each time, instead of the best one: see
    `fixed_lengths`.

    iterations: gradients in each step, of conjugate residuals. For Gaussian data they lead to E[x_0 | x_t, known], as
    the covariance of x_0 given x_t is the Jacobian of its mean times `noise_share`'s denominator. noise: at each time,
    the variance of the measurement's noise in these units. linear: False where `measure` has to be linearised.
    """

    def estimate(x: Tensor, t: int) -> Tensor:
        measure_here, known_here = (last[1], last[2]) if last is not None and t == last[0] else (measure, known)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            image = denoise(x, t)
            measured = measure_here(image)
        error = measured.detach() - known_here
        image = image.detach()
        calls = 0

        def apply(part: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal calls
            calls += 1
            # Of the squared error, so twice the transposed Jacobian's product.
            (gradient,) = torch.autograd.grad(measured, x, 2 * part, retain_graph=calls < iterations)
            direction = smooth(gradient)
            if fixed is not None:
                return direction, part
            change = measure_here(direction) if linear else _tangent(measure_here, image, direction)
            variance = noise(t)
            return direction, change + 2 * variance * part if variance else change

        if fixed is not None:
            return image - fixed[t] * apply(error)[0]
        return image - conjugate_residuals(apply, error, iterations, weight)[0]

    return estimate


def noise_share(variance: float, bar: float, white_variance: float) -> float:
    """The variance of a measurement's noise, in units of what Jacobians are multiplied by to be covariances.

    Those of x_0 given x_t = sqrt(bar) x_0 + sqrt(1 - bar) xi, with white noise xi of the given variance.
    """
    return variance * bar**0.5 / ((1 - bar) * white_variance)


def fixed_lengths(weight: float, times: Sequence[int], alpha_bar: Tensor) -> dict[int, float]:
    """Lengths at which a step of `ddpm` moves x_{t-1} by -weight times the gradient (∞-Diff section 5).

    times: those of the sampler. x_{t-1} holds the estimate with a factor, which they undo.
    """
    return {t: weight / factor for t, factor in zip(times, estimate_factors(times, alpha_bar), strict=False)}


def _tangent(measure: Callable[[Tensor], Tensor], image: Tensor, direction: Tensor) -> Tensor:
    """The derivative of a measurement at an image, along a direction."""
    change: Tensor = torch.autograd.functional.jvp(measure, image, direction)[1]
    return change

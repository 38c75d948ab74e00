"""Samplers: short functions over a denoiser. x starts as T xi and ends as T x_0.

denoise(x, t) gives an estimate of T x_0 at the integer time t; noise() gives a fresh T xi shaped like x; alpha_bar
(steps + 1,) is the schedule. Nothing here knows of networks, points or resolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from infdiff.diffusion.schedules import sampling_times

Denoiser = Callable[[Tensor, int], Tensor]
Noise = Callable[[], Tensor]
Sampler = Callable[..., Tensor]


def ddim(denoise: Denoiser, x: Tensor, steps: int, *, alpha_bar: Tensor, noise: Noise, eta: float = 0.0) -> Tensor:
    """DDIM (∞-Diff Eq. 6; Song et al. 2021 Eqs. 12 and 16). eta = 0 is deterministic, 1 as noisy as DDPM."""
    for bar_t, bar_s, t in _pairs(alpha_bar, steps):
        image = denoise(x, t)
        direction = (x - math.sqrt(bar_t) * image) / math.sqrt(1 - bar_t)
        sigma = eta * math.sqrt((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s))
        x = math.sqrt(bar_s) * image + math.sqrt(max(1 - bar_s - sigma**2, 0.0)) * direction
        if sigma > 0:
            x = x + sigma * noise()
        del image, direction  # as large as x: not to be held while the network runs
    return x


def ddpm(denoise: Denoiser, x: Tensor, steps: int, *, alpha_bar: Tensor, noise: Noise) -> Tensor:
    """Ancestral sampling from the posterior of Eq. 10, with variance beta-tilde."""
    return ddim(denoise, x, steps, alpha_bar=alpha_bar, noise=noise, eta=1.0)


def dpm_solver_2m(denoise: Denoiser, x: Tensor, steps: int, *, alpha_bar: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): second order, deterministic; the last step is first order.

    Written for mollified states: only log-SNR differences enter, so the noise's variance drops out.
    """
    earlier: Tensor | None = None
    earlier_h = 0.0
    for bar_t, bar_s, t in _pairs(alpha_bar, steps):
        image = denoise(x, t)
        if bar_s >= 1:
            return image
        h = _half_log_snr(bar_s) - _half_log_snr(bar_t)
        blend = image
        if earlier is not None:
            ratio = h / earlier_h
            blend = (1 + ratio / 2) * image - (ratio / 2) * earlier
        x = math.sqrt((1 - bar_s) / (1 - bar_t)) * x - math.sqrt(bar_s) * math.expm1(-h) * blend
        earlier, earlier_h = image, h
    return x


def ddim_inversion(denoise: Denoiser, x: Tensor, steps: int, *, alpha_bar: Tensor, iterations: int = 3) -> Tensor:
    """The noise from which deterministic DDIM makes the image x = T x_0 (Song et al. 2021, section 4.3).

    Each step inverts a DDIM step, which is an equation for x_t, by fixed-point iteration from x_s on.
    """
    for bar_t, bar_s, t in reversed(_pairs(alpha_bar, steps)):
        later = x
        for _ in range(iterations):
            image = denoise(later, t)
            direction = (later - math.sqrt(bar_t) * image) / math.sqrt(1 - bar_t)
            later = math.sqrt(bar_t / bar_s) * (x - math.sqrt(1 - bar_s) * direction) + math.sqrt(1 - bar_t) * direction
        x = later
    return x


SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "ddpm": ddpm, "dpm++": dpm_solver_2m}


def _half_log_snr(bar: float) -> float:
    return 0.5 * math.log(bar / (1 - bar))


def _pairs(alpha_bar: Tensor, steps: int) -> list[tuple[float, float, int]]:
    """(alpha-bar_t, alpha-bar_s, t) for each step from time t to the next time s."""
    times = sampling_times(alpha_bar.shape[0] - 1, steps)
    bars = [float(alpha_bar[t]) for t in times]
    return list(zip(bars[:-1], bars[1:], times[:-1], strict=True))

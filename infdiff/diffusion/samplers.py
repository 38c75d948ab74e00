"""Samplers: short functions over a denoiser. x starts as noise and ends as data.

denoise(x, t) estimates the data (T x_0 for mollified states) at an integer time t, or at a noise level sigma; noise()
returns fresh noise shaped like x. Where the steps lie is an argument: `times` from `schedules.sampling_times`, with
alpha_bar (steps + 1,) as the schedule, or `sigmas` from `schedules.sigma_steps`. No sampler depends on networks, points
or resolutions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from infdiff.diffusion.process import Denoiser, Noise

# sigma_t^2 of the reverse transitions (∞-Diff Eq. 29): beta-tilde_t of Eq. 10, or beta_t.
VARIANCES = ("posterior", "beta")


def ddim(
    denoise: Denoiser[int], x: Tensor, times: Sequence[int], *, alpha_bar: Tensor, noise: Noise, eta: float = 0.0
) -> Tensor:
    """DDIM (∞-Diff Eq. 6; Song et al. 2021 Eqs. 12 and 16). eta = 0 is deterministic, 1 as noisy as DDPM."""
    for bar_t, bar_s, t in _pairs(alpha_bar, times):
        image = denoise(x, t)
        direction = (x - math.sqrt(bar_t) * image) / math.sqrt(1 - bar_t)
        sigma = eta * math.sqrt((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s))
        x = math.sqrt(bar_s) * image + math.sqrt(max(1 - bar_s - sigma**2, 0.0)) * direction
        if sigma > 0:
            x = x + sigma * noise()
        del image, direction  # as large as x: not to be held while the network runs
    return x


def ddpm(
    denoise: Denoiser[int],
    x: Tensor,
    times: Sequence[int],
    *,
    alpha_bar: Tensor,
    noise: Noise,
    variance: str = "posterior",
) -> Tensor:
    """Ancestral sampling (∞-Diff Eqs. 10 and 29): at each step a draw about the posterior's mean.

    variance: one of VARIANCES, in units of T xi's. "posterior": beta-tilde, exact for data that is one image; "beta":
    beta, exact for Gaussian data as broad as the noise. The last step adds none.
    """
    if variance not in VARIANCES:
        raise ValueError(f"unknown variance {variance!r}: choose one of {', '.join(VARIANCES)}")
    for bar_t, bar_s, t in _pairs(alpha_bar, times):
        image, beta = denoise(x, t), 1 - bar_t / bar_s
        x = (math.sqrt(bar_s) * beta * image + math.sqrt(bar_t / bar_s) * (1 - bar_s) * x) / (1 - bar_t)
        if bar_s < 1:
            spread = beta if variance == "beta" else beta * (1 - bar_s) / (1 - bar_t)
            x = x + math.sqrt(spread) * noise()
        del image
    return x


def estimate_factors(times: Sequence[int], alpha_bar: Tensor) -> list[float]:
    """The factor of the estimate in what each step of `ddpm` leads to, in the order of the steps."""
    return [math.sqrt(bar_s) * (1 - bar_t / bar_s) / (1 - bar_t) for bar_t, bar_s, _ in _pairs(alpha_bar, times)]


def dpm_solver_2m(
    denoise: Denoiser[int], x: Tensor, times: Sequence[int], *, alpha_bar: Tensor, noise: Noise
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): second order, deterministic; the last step is first order.

    Written for mollified states: only log-SNR differences enter, so the noise's variance drops out.
    """
    earlier: Tensor | None = None
    earlier_h = 0.0
    for bar_t, bar_s, t in _pairs(alpha_bar, times):
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


def heun(
    denoise: Denoiser[float],
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """EDM Algorithm 2: Heun's second-order steps through the levels `sigmas`, from x = n, noise of variance 1, to y.

    Deterministic (Algorithm 1) with s_churn = 0. Otherwise a step from a level between s_min and s_max begins by adding
    fresh noise, s_noise times noise().
    """
    x = sigmas[0] * x
    for sigma, following in itertools.pairwise(sigmas):
        gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        raised = sigma * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * noise()
        slope = (x - denoise(x, raised)) / raised
        ahead = x + (following - raised) * slope
        if following > 0:
            slope = (slope + (ahead - denoise(ahead, following)) / following) / 2
            ahead = x + (following - raised) * slope
        x = ahead
    return x


def ddim_inversion(
    denoise: Denoiser[int], x: Tensor, times: Sequence[int], *, alpha_bar: Tensor, iterations: int = 3
) -> Tensor:
    """The noise from which deterministic DDIM makes the image x = T x_0 (Song et al. 2021, section 4.3).

    times: those of the sampler, descending. Each step inverts a DDIM step, which is an equation for x_t, by fixed-point
    iteration from x_s on.
    """
    for bar_t, bar_s, t in reversed(_pairs(alpha_bar, times)):
        later = x
        for _ in range(iterations):
            image = denoise(later, t)
            direction = (later - math.sqrt(bar_t) * image) / math.sqrt(1 - bar_t)
            later = math.sqrt(bar_t / bar_s) * (x - math.sqrt(1 - bar_s) * direction) + math.sqrt(1 - bar_t) * direction
        x = later
    return x


@dataclass(frozen=True)
class Sampler:
    """A sampler as a method registers it.

    run: the function. evaluations: of the network, in `steps` steps. options: the sampling options of its own.
    """

    run: Callable[..., Tensor]
    evaluations: Callable[[int], int] = lambda steps: steps
    options: tuple[str, ...] = ()


# Of processes with integer times, and of EDM. Whatever is registered here is what runs under its name.
SAMPLERS = {
    "ddim": Sampler(ddim, options=("eta",)),
    "ddpm": Sampler(ddpm, options=("variance",)),
    "dpm++": Sampler(dpm_solver_2m),
}
EDM_SAMPLERS = {"heun": Sampler(heun, lambda steps: 2 * steps - 1, options=("churn",))}


def sampler_options(samplers: Mapping[str, Sampler]) -> tuple[str, ...]:
    """The options that some of the samplers have."""
    return tuple(dict.fromkeys(option for sampler in samplers.values() for option in sampler.options))


def _half_log_snr(bar: float) -> float:
    return 0.5 * math.log(bar / (1 - bar))


def _pairs(alpha_bar: Tensor, times: Sequence[int]) -> list[tuple[float, float, int]]:
    """(alpha-bar_t, alpha-bar_s, t) for each step from time t to the next time s."""
    bars = [float(alpha_bar[t]) for t in times]
    return list(zip(bars[:-1], bars[1:], times[:-1], strict=True))

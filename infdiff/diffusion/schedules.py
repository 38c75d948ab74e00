"""Noise schedules, and where the steps of samplers lie.

alpha-bar over discrete times is that of Ho et al. (2020) and Nichol and Dhariwal (2021), sigma that of Karras et al.
(2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# The published cap on beta_t of the cosine schedule: keeps the last steps finite.
_MAX_BETA = 0.999
# The noise over the signal beyond which a state is all noise: sampling may start there (EDM's sigma_max).
_MOST_NOISE, _MOST_NOISE_WITH_LATENTS = 80.0, 20.0


def cosine_alpha_bar(steps: int) -> Tensor:
    """Nichol and Dhariwal Eq. 17, with s = 0.008."""

    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f((i + 1) / steps) / f(i / steps), _MAX_BETA) for i in range(steps)]
    return _from_betas(torch.tensor(betas, dtype=torch.float64))


def linear_alpha_bar(steps: int) -> Tensor:
    """Ho et al.: beta from 1e-4 to 0.02 at 1000 steps, scaled so that other numbers of steps end alike."""
    scale = 1000 / steps
    return _from_betas(torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64).clamp(max=_MAX_BETA))


def constant_alpha_bar(steps: int, beta: float = 0.008) -> Tensor:
    """Every beta_t the same: the latent model's schedule (Preechakul et al. 2022)."""
    return _from_betas(torch.full((steps,), beta, dtype=torch.float64))


SCHEDULES = {"cosine": cosine_alpha_bar, "linear": linear_alpha_bar, "constant": constant_alpha_bar}


def alpha_bar(name: str, steps: int, shift: float = 1.0) -> Tensor:
    """(steps + 1,) float64: alpha-bar_t for t = 0 (no noise, exactly 1) to t = steps.

    shift multiplies signal over noise, sqrt(alpha-bar / (1 - alpha-bar)), at every time (Hoogeboom et al. 2023,
    section 3.1): below 1, more of the times are noisy ones.
    Raises ValueError for an unknown name, fewer than one step, or a shift that is not positive.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"a schedule of {steps} steps: want at least 1")
    if not shift > 0:
        raise ValueError(f"shift={shift}: want a positive factor of signal over noise")
    bar = SCHEDULES[name](steps)
    return shift**2 * bar / (1 - bar + shift**2 * bar)


class AlphaBar:
    """A schedule's float32 values, on the CPU for samplers and on the device of a batch of times."""

    def __init__(self, name: str, steps: int, shift: float = 1.0) -> None:
        self.values = alpha_bar(name, steps, shift).float()
        self._copy = self.values

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """alpha-bar_t for times t (B,), shaped (B, 1, ...) to multiply `like` (B, ...)."""
        if self._copy.device != t.device:
            # Copied once: a copy in every step would stall the device's queue.
            self._copy = self.values.to(t.device)
        return self._copy[t].view(-1, *[1] * (like.dim() - 1))

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar_t) and sqrt(1 - alpha-bar_t), shaped as `at`."""
        bar = self.at(t, like)
        return bar.sqrt(), (1 - bar).sqrt()


def sampling_times(schedule_steps: int, steps: int) -> list[int]:
    """`steps` + 1 times from schedule_steps down to 0, evenly spaced.

    Raises ValueError when there are more sampling steps than the schedule has.
    """
    if not 1 <= steps <= schedule_steps:
        raise ValueError(f"{steps} sampling steps: want 1 to {schedule_steps}, the length of the schedule")
    return [round(schedule_steps * (steps - i) / steps) for i in range(steps + 1)]


def noise_times(alpha_bar: Tensor, steps: int, rho: float = 7.0) -> list[int]:
    """`steps` + 1 times evenly spaced in sigma^(1 / rho), sigma = sqrt((1 - alpha-bar) / alpha-bar): EDM Eq. 5, then 0.

    alpha_bar (schedule steps + 1,). They run from the time with the most noise up to sigma = 80 down to time 1, so
    that the last step, which ends at the image, leaves from almost none. Where the schedule has no time between two
    of them, the next lower time is taken. Raises ValueError when there are more sampling steps than times.
    """
    return _times_between(alpha_bar, steps, _MOST_NOISE, lambda sigma: sigma ** (1 / rho), lambda level: level**rho)


def log_times(alpha_bar: Tensor, steps: int) -> list[int]:
    """`steps` + 1 times evenly spaced in ln(sigma), as in DPM-Solver (Lu et al. 2022), from sigma = 20.

    Latents say what lies where, so that more noise decides nothing: the steps are finer where detail is drawn.
    """
    return _times_between(alpha_bar, steps, _MOST_NOISE_WITH_LATENTS, torch.log, torch.exp)


def _times_between(
    alpha_bar: Tensor,
    steps: int,
    most: float,
    level: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
) -> list[int]:
    """Times, then 0, at which `level` of sigma falls evenly from that of `most` to that of time 1."""
    ratio = ((1 - alpha_bar[1:].double()) / alpha_bar[1:].double()).sqrt()
    last = max(int((ratio <= most).sum()), min(steps, len(ratio)))
    if not 1 <= steps <= last:
        raise ValueError(f"{steps} sampling steps: want 1 to {len(ratio)}, the length of the schedule")
    first, end = float(level(ratio[last - 1])), float(level(ratio[0]))
    sigmas = inverse(torch.linspace(first, end, steps).double())
    times = [1 + int((ratio - sigma).abs().argmin()) for sigma in sigmas]
    # Each at least one below the one before, and with enough times left for those after it.
    for i in range(1, steps):
        times[i] = min(times[i], times[i - 1] - 1)
    for i in range(steps):
        times[i] = max(times[i], steps - i)
    return [*times, 0]


# By name: (alpha-bar, steps) -> times.
SPACINGS: dict[str, Callable[[Tensor, int], list[int]]] = {
    "time": lambda alpha_bar, steps: sampling_times(len(alpha_bar) - 1, steps),
    "noise": noise_times,
    "log": log_times,
}


def sigma_steps(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """EDM Eq. 5: `steps` noise levels from sigma_max down to sigma_min, evenly spaced in sigma^(1 / rho), then 0.

    A single step leads from sigma_max to 0. Raises ValueError for fewer, and unless 0 < sigma_min < sigma_max and
    rho > 0.
    """
    if steps < 1:
        raise ValueError(f"{steps} sampling steps: want at least 1")
    if not 0 < sigma_min < sigma_max or rho <= 0:
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}: want 0 < sigma_min < sigma_max and rho > 0"
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def _from_betas(betas: Tensor) -> Tensor:
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])

"""Distributions of the time t in training: uniform, or lognormal in the noise over the signal."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# (how many, generator) -> times (B,) int64 in 1..steps, on the generator's device.
DrawTimes = Callable[[int, torch.Generator], Tensor]

DRAWS = ("uniform", "lognormal")


def uniform_times(steps: int) -> DrawTimes:
    """Every time alike, as the papers of discrete diffusion draw it."""

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, steps + 1, (batch,), device=generator.device, generator=generator)

    return draw


class LognormalTimes:
    """Times whose ln(noise std / signal std) is normal, as EDM draws its noise levels (Karras et al. 2022, Table 1).

    log_ratio (steps + 1,): ln(noise std / signal std) at every time, ascending; that of time 0 is not used. A draw goes
    to the nearest time; one beyond the schedule's ends, to the end.
    """

    def __init__(self, log_ratio: Tensor, mean: float, std: float) -> None:
        self.mean, self.std = mean, std
        inner = log_ratio[1:].double()
        self.bounds = ((inner[1:] + inner[:-1]) / 2).float()  # between the times t and t + 1

    def __call__(self, batch: int, generator: torch.Generator) -> Tensor:
        if self.bounds.device != generator.device:
            # Moved once: a copy in every step would stall the device's queue.
            self.bounds = self.bounds.to(generator.device)
        wanted = self.mean + self.std * torch.randn(batch, device=generator.device, generator=generator)
        return 1 + torch.searchsorted(self.bounds, wanted)

    def reached(self) -> float:
        """Part of the draws between the first and the last time of the schedule."""
        low, high = (float((bound - self.mean) / self.std) for bound in (self.bounds[0], self.bounds[-1]))
        return 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))

"""Training time in steps: one of each kind is timed, and weighted as training draws it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from infdiff.benchmark.steps import plan_training
from infdiff.config.settings import Config
from infdiff.errors import OptionError, UserError
from infdiff.methods.sizes import training_weights

_UNITS = {"s": 1, "m": 60, "h": 3600}
_REPEATS = 20


@dataclass(frozen=True)
class Budget:
    """The training of a row: `seconds` of it, or, where these are None, `steps`."""

    seconds: float | None = None
    steps: int = 0

    @classmethod
    def read(cls, option: str, text: str) -> Budget:
        """Read "90s", "30m", "1.5h" or "500 steps". Raises OptionError for anything else."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|steps)", text.strip())
        if match is None or float(match[1]) == 0 or (match[2] == "steps" and "." in match[1]):
            raise OptionError(option, text, "want a time, as 90s, 30m or 1.5h, or a number, as '500 steps'")
        if match[2] == "steps":
            return cls(steps=int(match[1]))
        return cls(seconds=float(match[1]) * _UNITS[match[2]])


def seconds_a_step(config: Config, device: torch.device, repeat: int = _REPEATS) -> float:
    """Measure the mean time of a training step over the sizes and the rates of points that training draws.

    Of each kind the least time counts, which other programs disturb least. Raises UserError when a step does not fit
    into memory.
    """
    sizes, rates = training_weights(config), config.subsample_rates
    plan = plan_training(config, device, repeat)
    total, seconds = sum(rates.values()), 0.0
    for setting, cost in zip(plan.settings, plan.run(), strict=True):
        if cost is None:
            raise UserError(f"{setting.describe()}: a training step does not fit into memory")
        seconds += sizes[setting.size] * rates[setting.subsample] / total * cost.timing.minimum / 1000
    return seconds

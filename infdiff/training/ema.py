"""An exponential moving average of weights that can be used from the first step on."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """Averaged copies of modules. The decay of update n is min(decay, (1 + n) / (10 + n)).

    So the average forgets the initial weights within the first updates, instead of sampling their noise for hours.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.modules = {name: copy.deepcopy(module).eval().requires_grad_(False) for name, module in modules.items()}

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module], n: int) -> None:
        """Move towards the modules' weights; n counts the updates from 0."""
        weight = 1 - min(self.decay, (1 + n) / (10 + n))
        for name, average in self.modules.items():
            torch._foreach_lerp_(list(average.parameters()), list(modules[name].parameters()), weight)
            # Running statistics are averages already.
            for mine, theirs in zip(average.buffers(), modules[name].buffers(), strict=True):
                mine.copy_(theirs)

"""EMA weights: an exponential moving average of weights that is usable from the first step on."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Copies of modules with EMA weights. The decay of update n is min(decay, (1 + n) / (10 + n)).

    The small decay of the first updates makes it forget the initial weights at once, instead of after many thousands
    of updates. Buffers, such as running statistics, belong to the weights that made them: they are not copied, and
    whoever uses the copies measures theirs first.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.modules = {name: copy.deepcopy(module).eval().requires_grad_(False) for name, module in modules.items()}

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module], n: int) -> None:
        """Move towards the modules' weights. n counts the updates from 0."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, ema in self.modules.items():
            averages += ema.parameters()
            weights += modules[name].parameters()
        torch._foreach_lerp_(averages, weights, self._weight(n))

    def _weight(self, n: int) -> float:
        return 1 - min(self.decay, (1 + n) / (10 + n))

    def gather(self) -> None:
        """Complete the modules, where processes hold parts of them; a call of all processes."""

    def load(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Load the weights and buffers of one module."""
        self.modules[name].load_state_dict(tensors)

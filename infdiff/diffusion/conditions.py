"""Conditions of images: labels, and channels that are known. Left out at random in training, and guided by in sampling.

A label is a row of numbers; zeros say nothing. Known channels enter a network as further channels of its input,
followed by one that is 1 where they are known; zeros throughout say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.diffusion.process import Network

# (states (B, C, H, W), times (B,), labels (B, label_dim) or None, `with_known` channels or None) -> a prediction.
ConditionalNetwork = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Condition:
    """Labels and known channels of images to be sampled.

    labels (B, label_dim), known (B, K + 1, H, W) as `with_known` makes it; None: nothing. guidance: the weight of
    classifier-free guidance; 1 for the conditional prediction itself.
    """

    labels: Tensor | None = None
    known: Tensor | None = None
    guidance: float = 1.0

    @property
    def given(self) -> bool:
        """True if there are any."""
        return self.labels is not None or self.known is not None

    def rows(self, places: Tensor) -> Condition:
        """The condition of some of the images."""
        labels = None if self.labels is None else self.labels[places.to(self.labels.device)]
        known = None if self.known is None else self.known[places.to(self.known.device)]
        return Condition(labels, known, self.guidance)


UNCONDITIONAL = Condition()


def guided_network(network: ConditionalNetwork, condition: Condition) -> Network:
    """The network for images of a condition, with classifier-free guidance (Ho and Salimans 2022).

    u + guidance (c - u), of its conditional prediction c and its unconditional one u: two evaluations, but for guidance
    0 and 1, where one of them is the result.
    """
    weight = condition.guidance if condition.given else 1.0

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if weight == 1:
            return network(x, t, condition.labels, condition.known)
        plain = network(x, t, None, None)
        if weight == 0:
            return plain
        return torch.lerp(plain, network(x, t, condition.labels, condition.known), weight)

    return guided


def with_known(values: Tensor, dim: int = 1) -> Tensor:
    """Channels that are known, (B, K, ...), NaN where they are not -> (B, K + 1, ...): zeros there, and the last one 0.

    dim: of the channels.
    """
    known = ~values.isnan().any(dim=dim, keepdim=True)
    return torch.cat([torch.where(known, values, 0.0), known.to(values.dtype)], dim=dim)


def draw_dropped(batch: int, probability: float, kinds: int, generator: torch.Generator) -> Tensor:
    """Draw the conditions that are left out in training: (batch, kinds) bool, each image's row by itself.

    All kinds together with this probability; where there are several, each by itself with it, too, so that a network
    learns to do without any of them.
    """
    draws = torch.rand((batch, kinds + 1), device=generator.device, generator=generator)
    together = draws[:, :1] < probability
    return together | (draws[:, 1:] < probability) if kinds > 1 else together


def dropped(rows: Tensor, out: Tensor) -> Tensor:
    """Rows (B, ...) of conditions with zeros where `out` (B,) is true."""
    return torch.where(out.view(-1, *[1] * (rows.dim() - 1)), 0.0, rows)

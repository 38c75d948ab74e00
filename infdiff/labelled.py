"""Batches of examples with labels: images, images at points, or latents, and a row of numbers for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.points import PointBatch


@dataclass(frozen=True)
class Labelled:
    """A batch of B examples and their labels (B, label_dim) float32. It has the examples' shape and device."""

    examples: Tensor | PointBatch
    labels: Tensor

    @classmethod
    def join(cls, batches: Sequence[Labelled]) -> Labelled:
        """Concatenate batches of the same kind of examples."""
        examples: list[Tensor | PointBatch] = [batch.examples for batch in batches]
        points = [example for example in examples if isinstance(example, PointBatch)]
        images = [example for example in examples if isinstance(example, Tensor)]
        joined = PointBatch.join(points) if points else torch.cat(images)
        return cls(joined, torch.cat([batch.labels for batch in batches]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the examples."""
        return tuple(self.examples.shape)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Labelled:
        """Return the batch on a device."""
        examples = self.examples.to(device, non_blocking=non_blocking)
        return Labelled(examples, self.labels.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Labelled:
        """Return the batch in page-locked memory."""
        return Labelled(self.examples.pin_memory(), self.labels.pin_memory())


def without_labels(batch: Tensor | PointBatch | Labelled) -> tuple[Tensor | PointBatch, Tensor | None]:
    """Return the examples of a batch, and their labels, if it has any."""
    return (batch.examples, batch.labels) if isinstance(batch, Labelled) else (batch, None)

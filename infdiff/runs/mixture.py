"""Configuration and images -> what each training step is given: one resolution, a batch of its own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.config import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.batches import Examples, ImageSet, first_batches, mixed_batches
from infdiff.data.mixture import Mixture
from infdiff.data.upsampled import Upsampled
from infdiff.methods.sizes import batch_sizes, largest, resolutions, training_weights, upsampled_size
from infdiff.runs.data import Data


@dataclass(frozen=True)
class Part:
    """Images at one of the resolutions that are trained on."""

    weight: float
    batch_size: int
    train: Examples
    validation: Examples


class TrainingData:
    """Batches of a run, from any step on, and what they are held against."""

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        counts = batch_sizes(config)
        self.config, self.device = config, device
        self.parts = [
            Part(weight, counts[size], *(_at(size, config, images) for images in (data.train, data.validation)))
            for size, weight in training_weights(config).items()
        ]
        self.mixture = Mixture(
            [part.weight for part in self.parts],
            [part.batch_size for part in self.parts],
            seed=config.seed,
            batches_a_step=config.train.accumulate,
        )

    def batches(self, step: int) -> Iterator[Tensor]:
        """Endless (B, 3, H, W) uint8 batches from an optimiser step on, those of a step at one resolution."""
        return mixed_batches(
            [part.train for part in self.parts],
            self.mixture.draws(step),
            seed=self.config.seed,
            position=self.mixture.images_before(step),
            workers=self.config.data.workers,
            device=self.device,
        )

    def validation(self) -> Iterator[Tensor]:
        """The held-out images at every resolution."""
        for part in self.parts:
            yield from first_batches(part.validation, part.batch_size, self.config.train.validation_images, self.device)

    def label(self, batch: Tensor) -> str:
        """The batch's resolution, where there are several."""
        return format_size((batch.shape[2], batch.shape[3])) if len(self.parts) > 1 else ""


def _at(size: Size, config: Config, images: ImageSet) -> Examples:
    if size == upsampled_size(config):
        return Upsampled(images.at(largest(resolutions(config))), size)
    return images.at(size)

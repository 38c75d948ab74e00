"""The images of a run, and the batches that each training step is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.config.files import changed
from infdiff.config.settings import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.batches import Examples, ResizableExamples, first_batches, mixed_batches
from infdiff.data.demo import DEMO_PATH
from infdiff.data.image_set import ImageSet, split
from infdiff.data.mixture import Mixture
from infdiff.data.store import ImageStore
from infdiff.data.upsampled import Upsampled
from infdiff.errors import UserError
from infdiff.methods.sizes import batch_sizes, largest, resolutions, training_size, training_weights, upsampled_size
from infdiff.runs.fields import normalised_as, require_channels


@dataclass(frozen=True)
class Data:
    """Training and validation images at the training size."""

    train: ResizableExamples
    validation: ResizableExamples


def build_data(config: Config, device: torch.device) -> Data:
    """Open the image stores and split them.

    Raises UserError when one is missing or not ours, or holds images smaller than the sizes to train on.
    """
    size, cache = training_size(config), config.data.cache
    store = ImageStore(config.data.path or DEMO_PATH)
    require_channels(config, store)
    _require_stored(store, resolutions(config))
    if config.data.validation_path:
        other = normalised_as(ImageStore(config.data.validation_path), store.field)
        train, validation = list(range(len(store))), list(range(len(other)))
    else:
        other = store
        train, validation = split(store, config.data.validation_fraction, config.seed)
    return Data(
        ImageSet(store, train, size, cache=cache, device=device),
        ImageSet(other, validation[: config.train.validation_images], size, cache="ram"),
    )


def uncached(config: Config) -> Config:
    """The same configuration, for images that are read only once."""
    return changed(config, {"data.cache": "none"})


@dataclass(frozen=True)
class Part:
    """Training and validation images at one of the resolutions to train on."""

    weight: float
    batch_size: int
    train: Examples
    validation: Examples


class ValidationBatches:
    """The first batches (B, C, H, W) of every part, at most `each` of them, of the first `limit` images."""

    def __init__(self, parts: Sequence[Part], each: int, limit: int, device: torch.device) -> None:
        self.parts, self.device = parts, device
        self.limits = [min(limit, len(part.validation), each * part.batch_size) for part in parts]

    def __len__(self) -> int:
        return sum(-(-limit // part.batch_size) for part, limit in zip(self.parts, self.limits, strict=True))

    def __iter__(self) -> Iterator[Tensor]:
        for part, limit in zip(self.parts, self.limits, strict=True):
            yield from first_batches(part.validation, part.batch_size, limit, self.device)


class TrainingData:
    """Training batches of a run from any step on, each at one resolution, and its validation batches."""

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        counts = batch_sizes(config)
        self.config, self.device = config, device
        self.parts = [
            Part(weight, counts[size], _at(size, config, data.train), _at(size, config, data.validation))
            for size, weight in training_weights(config).items()
        ]
        self.mixture = Mixture(
            [part.weight for part in self.parts],
            [part.batch_size for part in self.parts],
            seed=config.seed,
            batches_a_step=config.train.accumulate,
        )

    def batches(self, step: int) -> Iterator[Tensor]:
        """Endless batches (B, C, H, W) from an optimiser step on; those of one step have one resolution."""
        return mixed_batches(
            [part.train for part in self.parts],
            self.mixture.draws(step),
            seed=self.config.seed,
            position=self.mixture.images_before(step),
            workers=self.config.data.workers,
            device=self.device,
        )

    def validation(self) -> ValidationBatches:
        """Batches of the validation images at every resolution, as many of each as settings allow."""
        train = self.config.train
        each = max(1, train.validation_batches(train.eval_every) // len(self.parts))
        return ValidationBatches(self.parts, each, train.validation_images, self.device)

    def label(self, batch: Tensor) -> str:
        """The batch's resolution if the run has several, else nothing."""
        return format_size((batch.shape[2], batch.shape[3])) if len(self.parts) > 1 else ""


def _at(size: Size, config: Config, images: ResizableExamples) -> Examples:
    if size == upsampled_size(config):
        return Upsampled(images.at(largest(resolutions(config))), size)
    return images.at(size)


def _require_stored(store: ImageStore, sizes: Iterable[Size]) -> None:
    for size in sizes:
        if not store.holds(size):
            raise UserError(
                f"resolution {format_size(size)} is larger than the images of {store.path}: prepare larger ones, or "
                "train on smaller ones (data.size, data.resolutions)"
            )

"""The images of a run, and the batches that each training step is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from infdiff.config.files import changed
from infdiff.config.settings import Config, InfinityDiffConfig
from infdiff.coordinates import Size, format_size
from infdiff.data.batches import Batch, mixed_batches, taken
from infdiff.data.demo import DEMO_PATH
from infdiff.data.examples import Examples, ResizableExamples
from infdiff.data.image_set import ImageSet, split
from infdiff.data.mixture import Mixture
from infdiff.data.point_examples import PointExamples, PointReader
from infdiff.data.store import ImageStore
from infdiff.data.upsampled import Upsampled
from infdiff.diffusion.mollifier import Mollifier
from infdiff.errors import UserError
from infdiff.methods.sizes import (
    batch_sizes,
    drawn_rate,
    largest,
    point_count,
    reads_points,
    resolutions,
    training_size,
    training_weights,
    upsampled_size,
)
from infdiff.runs.conditions import labelled_as, require_labels
from infdiff.runs.fields import normalised_as, require_channels
from infdiff.seeding import derive_seed


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
    require_labels(config, store)
    _require_stored(store, resolutions(config))
    if config.data.validation_path:
        other = labelled_as(normalised_as(ImageStore(config.data.validation_path), store.field), store.labels)
        train, validation = list(range(len(store))), list(range(len(other)))
    else:
        other = store
        train, validation = split(store, config.data.validation_fraction, config.seed)
    labelled = bool(config.label_dim)
    return Data(
        ImageSet(store, train, size, cache=cache, device=device, labelled=labelled),
        ImageSet(other, validation[: config.train.validation_images], size, cache="ram", labelled=labelled),
    )


def uncached(config: Config) -> Config:
    """The same configuration, for images that are read only once."""
    return changed(config, {"data.cache": "none"})


@dataclass(frozen=True)
class Part:
    """Training and validation images at one of the resolutions to train on.

    train_points, validation_points: the same, seen at points, by the rates at which they are (`reads_points`).
    """

    weight: float
    batch_size: int
    train: Examples
    validation: Examples
    train_points: Mapping[float, PointExamples]
    validation_points: Mapping[float, PointExamples]


class ValidationBatches:
    """The first batches of every part, at most `each` of them, of the first `limit` images.

    rate: of points in a batch, by its number.
    """

    def __init__(
        self, parts: Sequence[Part], each: int, limit: int, device: torch.device, rate: Callable[[int], float]
    ) -> None:
        self.parts, self.device, self.rate = parts, device, rate
        self.limits = [min(limit, len(part.validation), each * part.batch_size) for part in parts]

    def __len__(self) -> int:
        return sum(-(-limit // part.batch_size) for part, limit in zip(self.parts, self.limits, strict=True))

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        for part, limit in zip(self.parts, self.limits, strict=True):
            for places in torch.arange(limit).split(part.batch_size):
                images = part.validation_points.get(self.rate(number), part.validation)
                yield taken(images, places).to(self.device)
                number += 1


class TrainingData:
    """Training batches of a run from any step on, each at one resolution, and its validation batches."""

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        self.config, self.device = config, device
        self.parts = [_part(config, data, size, weight) for size, weight in training_weights(config).items()]
        self.mixture = Mixture(
            [part.weight for part in self.parts],
            [part.batch_size for part in self.parts],
            seed=config.seed,
            batches_a_step=config.train.accumulate,
        )

    def batches(self, step: int) -> Iterator[Any]:
        """Endless batches from an optimiser step on; those of one step have one resolution.

        (B, C, H, W), uint8 or fields, or `PointBatch` in steps whose rate of points `reads_points`.
        """
        rates = list(self.config.subsample_rates)
        sets = [part.train_points.get(rate, part.train) for part in self.parts for rate in rates]
        draws = (
            (part * len(rates) + rates.index(self._rate("step", step + number // self.config.train.accumulate)), count)
            for number, (part, count) in enumerate(self.mixture.draws(step))
        )
        return mixed_batches(
            sets,
            draws,
            seed=self.config.seed,
            position=self.mixture.images_before(step),
            workers=self.config.data.workers,
            device=self.device,
        )

    def validation(self) -> ValidationBatches:
        """Batches of the validation images at every resolution, as many of each as settings allow."""
        train = self.config.train
        each = max(1, train.validation_batches(train.eval_every) // len(self.parts))
        rate = partial(self._rate, "validation")
        return ValidationBatches(self.parts, each, train.validation_images, self.device, rate)

    def _rate(self, purpose: str, number: int) -> float:
        """Rate of points in a step, or a validation batch: what the objective draws from the trainer's generator."""
        return drawn_rate(self.config, derive_seed(self.config.seed, purpose, number))

    def label(self, batch: Batch) -> str:
        """The batch's resolution if the run has several, else nothing."""
        return format_size((batch.shape[2], batch.shape[3])) if len(self.parts) > 1 else ""


def _part(config: Config, data: Data, size: Size, weight: float) -> Part:
    train, validation = _at(size, config, data.train), _at(size, config, data.validation)
    rates = [rate for rate in config.subsample_rates if reads_points(config, size, rate)]
    seen = [
        _seen_at_points(config, images, size, rates, purpose)
        for images, purpose in ((train, "points"), (validation, "validation points"))
    ]
    return Part(weight, batch_sizes(config)[size], train, validation, *seen)


def _seen_at_points(
    config: Config, images: Examples, size: Size, rates: Sequence[float], purpose: str
) -> dict[float, PointExamples]:
    """The images at points, by rate. Fields are read completely, as what is missing has to be known."""
    fields = isinstance(images, ImageSet) and images.store.field is not None
    if fields or not rates or not isinstance(config, InfinityDiffConfig):
        return {}
    reader = PointReader(images, size, Mollifier(config.diffusion.sigma, training_size(config)))
    draw = partial(
        PointExamples,
        reader,
        kind=config.train.points,
        flip=config.data.flip,
        encoder=config.latent_dim > 0,
        seed=config.seed,
        purpose=purpose,
    )
    return {rate: draw(point_count(config, size, rate)) for rate in rates}


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

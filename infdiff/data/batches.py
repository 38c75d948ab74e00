"""Batches of training images. The order is a function of (seed, epoch); the position is one integer.

Where several processes train together, each gets its rows of every batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from infdiff.data.examples import Examples
from infdiff.data.point_examples import PointExamples
from infdiff.labelled import Labelled
from infdiff.points import PointBatch
from infdiff.processes import own_range
from infdiff.seeding import generator_for

Batch = Tensor | PointBatch | Labelled


def taken(images: Examples | PointExamples, places: Tensor) -> Batch:
    """Return the examples at `places` (B,), with their labels where the set has any."""
    examples = images.take(places)
    labels = images.labels
    return examples if labels is None else Labelled(examples, labels[places.to(labels.device)].to(examples.device))


def first_batches(images: Examples, batch_size: int, limit: int, device: torch.device) -> Iterator[Tensor]:
    """Yield (B, 3, H, W) uint8 batches of the first `limit` images, in order, on `device`."""
    for places in torch.arange(min(limit, len(images))).split(batch_size):
        yield images.take(places).to(device)


def order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation of `count` images for an epoch."""
    return torch.randperm(count, generator=generator_for("cpu", seed, "order", epoch))


def batches(
    images: Examples, batch_size: int, *, seed: int, position: int, workers: int, device: torch.device | str
) -> Iterator[Tensor]:
    """Yield (B, 3, H, W) uint8 batches on `device` without end, starting at `position` of the endless order."""
    draws = itertools.repeat((0, batch_size))
    return mixed_batches([images], draws, seed=seed, position=position, workers=workers, device=device)


def mixed_batches(
    sets: Sequence[Examples | PointExamples],
    draws: Iterable[tuple[int, int]],
    *,
    seed: int,
    position: int,
    workers: int,
    device: torch.device | str,
) -> Iterator[Any]:
    """Yield batches like `batches`, from several sets of the same images. draws: set and size of each batch.

    Of sets that are seen at points, the batches are `PointBatch`.
    """
    if any(images.images is None for images in sets):
        yield from _loaded(sets, draws, seed, position, workers, device)
        return
    for number, count in draws:
        images, positions = sets[number], [position + i for i in own_range(count)]
        places = [_place(len(images), seed, p) for p in positions]
        if isinstance(images, PointExamples):
            pairs = zip(places, positions, strict=True)
            batch: Batch = _joined([_labelled(images.draw(*pair), images, pair[0]) for pair in pairs])
        else:
            batch = taken(images, torch.tensor(places))
        yield _to_device(batch, device)
        position += count


def _loaded(
    sets: Sequence[Examples | PointExamples],
    draws: Iterable[tuple[int, int]],
    seed: int,
    position: int,
    workers: int,
    device: torch.device | str,
) -> Iterator[Batch]:
    pin = torch.device(device).type == "cuda"
    loader = DataLoader(
        _InOrder(sets, seed),
        batch_sampler=_Positions(draws, position),
        collate_fn=_joined,
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        # Without one it draws from the global generator when it starts: a resumed step's dropout would differ.
        generator=torch.Generator(),
    )
    for batch in loader:
        yield _to_device(batch, device)


def _labelled(batch: Tensor | PointBatch, images: Examples | PointExamples, place: int) -> Batch:
    """A batch of one example, with its label where the set has any."""
    return batch if images.labels is None else Labelled(batch, images.labels[place : place + 1].to(batch.device))


def _joined(examples: list[Batch]) -> Batch:
    labelled = [example for example in examples if isinstance(example, Labelled)]
    if labelled:
        return Labelled.join(labelled)
    points = [example for example in examples if isinstance(example, PointBatch)]
    if points:
        return PointBatch.join(points)
    joined: Tensor = default_collate(examples)
    return joined


def _to_device(batch: Batch, device: torch.device | str) -> Batch:
    if torch.device(device).type == "cuda" and batch.device.type == "cpu":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


@lru_cache(maxsize=2)
def _order_list(count: int, seed: int, epoch: int) -> list[int]:
    return order(count, seed, epoch).tolist()


def _place(count: int, seed: int, position: int) -> int:
    return _order_list(count, seed, position // count)[position % count]


class _InOrder(Dataset[Batch]):
    """Images by their set and their position in the endless order."""

    def __init__(self, sets: Sequence[Examples | PointExamples], seed: int) -> None:
        self.sets, self.seed = sets, seed

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        images, position = self.sets[key[0]], key[1]
        place = _place(len(images), self.seed, position)
        if isinstance(images, PointExamples):
            return _labelled(images.draw(place, position), images, place)
        image = images[place]
        return image if images.labels is None else _labelled(image[None], images, place)


class _Positions(Sampler[list[tuple[int, int]]]):
    def __init__(self, draws: Iterable[tuple[int, int]], start: int) -> None:
        self.draws, self.start = draws, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position = self.start
        for number, count in self.draws:
            yield [(number, position + i) for i in own_range(count)]
            position += count

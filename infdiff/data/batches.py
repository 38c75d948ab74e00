"""Batches of training images. The order is a function of (seed, epoch); the position is one integer.

Where several processes train together, each gets its rows of every batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from infdiff.coordinates import Size
from infdiff.processes import own_range
from infdiff.seeding import generator_for


class Examples(Protocol):
    """Training examples: an ImageSet, or anything that can be indexed."""

    @property
    def images(self) -> Tensor | None:
        """All of them if they are held in memory, else None: then worker processes read them."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Tensor: ...

    def take(self, places: Tensor) -> Tensor:
        """Return the examples at `places` (B,)."""


class ResizableExamples(Examples, Protocol):
    """Images that can be had at any size."""

    def at(self, size: Size) -> Examples:
        """Return the same images at a size (H, W)."""


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
    sets: Sequence[Examples],
    draws: Iterable[tuple[int, int]],
    *,
    seed: int,
    position: int,
    workers: int,
    device: torch.device | str,
) -> Iterator[Tensor]:
    """Yield batches like `batches`, from several sets of the same images. draws: set and size of each batch."""
    if any(images.images is None for images in sets):
        yield from _loaded(sets, draws, seed, position, workers, device)
        return
    for number, count in draws:
        places = torch.tensor([_place(len(sets[number]), seed, position + i) for i in own_range(count)])
        yield _to_device(sets[number].take(places), device)
        position += count


def _loaded(
    sets: Sequence[Examples],
    draws: Iterable[tuple[int, int]],
    seed: int,
    position: int,
    workers: int,
    device: torch.device | str,
) -> Iterator[Tensor]:
    pin = torch.device(device).type == "cuda"
    loader = DataLoader(
        _InOrder(sets, seed),
        batch_sampler=_Positions(draws, position),
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )
    for batch in loader:
        yield _to_device(batch, device)


def _to_device(batch: Tensor, device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cuda" and batch.device.type == "cpu":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


@lru_cache(maxsize=2)
def _order_list(count: int, seed: int, epoch: int) -> list[int]:
    return order(count, seed, epoch).tolist()


def _place(count: int, seed: int, position: int) -> int:
    return _order_list(count, seed, position // count)[position % count]


class _InOrder(Dataset[Tensor]):
    """Images by their set and their position in the endless order."""

    def __init__(self, sets: Sequence[Examples], seed: int) -> None:
        self.sets, self.seed = sets, seed

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        images = self.sets[key[0]]
        return images[_place(len(images), self.seed, key[1])]


class _Positions(Sampler[list[tuple[int, int]]]):
    def __init__(self, draws: Iterable[tuple[int, int]], start: int) -> None:
        self.draws, self.start = draws, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position = self.start
        for number, count in self.draws:
            yield [(number, position + i) for i in own_range(count)]
            position += count

"""Batches of training images. The order is a function of (seed, epoch); the position is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from infdiff.data.images import crop_to_aspect, resize
from infdiff.data.store import ImageStore, to_tensor
from infdiff.errors import UserError
from infdiff.grid import Size
from infdiff.seeding import generator_for

CACHES = ("none", "ram", "device")


class ImageSet(Dataset[Tensor]):
    """Some images of a store, at one size, optionally all held as uint8 in memory.

    Images of another size are cropped centrally to the aspect ratio and resized, antialiased.
    """

    def __init__(
        self,
        store: ImageStore,
        indices: list[int],
        size: Size,
        *,
        cache: str = "none",
        device: torch.device | str = "cpu",
    ) -> None:
        if cache not in CACHES:
            raise UserError(f"data.cache: {cache}: choose one of {', '.join(CACHES)}")
        self.store, self.indices, self.size, self.cache = store, indices, size, cache
        self.images: Tensor | None = None
        if cache != "none":
            images = torch.empty(len(indices), 3, *size, dtype=torch.uint8)
            for place in range(len(indices)):
                images[place] = self._read(place)
            self.images = images.to(device) if cache == "device" else images

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Tensor:
        return self._read(place) if self.images is None else self.images[place]

    def take(self, places: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 images at `places` (B,)."""
        if self.images is None:
            return torch.stack([self._read(int(p)) for p in places])
        return self.images[places.to(self.images.device)]

    def _read(self, place: int) -> Tensor:
        image = self.store.read(self.indices[place])
        return to_tensor(resize(crop_to_aspect(image, self.size), self.size))


def first_batches(images: ImageSet, batch_size: int, limit: int, device: torch.device) -> Iterator[Tensor]:
    """(B, 3, H, W) uint8 batches of the first `limit` images, in order, on `device`."""
    for places in torch.arange(min(limit, len(images))).split(batch_size):
        yield images.take(places).to(device)


def split(store: ImageStore, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and held-out images. Crops of one photograph stay together.

    Raises UserError when either part would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"data.validation_fraction: {fraction}: want a part of the data, above 0 and below 1")
    crops = store.header.crops
    groups = -(-len(store) // crops)
    if groups < 2:
        raise UserError(f"{store.path} holds {groups} image: training needs at least 2, one of them held out")
    held_out = set(
        torch.randperm(groups, generator=generator_for("cpu", seed, "split"))[
            : max(1, round(groups * fraction))
        ].tolist()
    )
    train = [i for i in range(len(store)) if i // crops not in held_out]
    return train, [i for i in range(len(store)) if i // crops in held_out]


def order(count: int, seed: int, epoch: int) -> Tensor:
    """The permutation of `count` images for an epoch."""
    return torch.randperm(count, generator=generator_for("cpu", seed, "order", epoch))


class Examples(Protocol):
    """Training examples: an ImageSet, or anything held in memory that can be indexed."""

    images: Tensor | None

    def __len__(self) -> int: ...

    def take(self, places: Tensor) -> Tensor: ...


def batches(
    images: ImageSet | Examples, batch_size: int, *, seed: int, position: int, workers: int, device: torch.device | str
) -> Iterator[Tensor]:
    """Endless (B, 3, H, W) uint8 batches on `device`, from the image at `position` of the endless order on."""
    if images.images is None:
        yield from _loaded(images, batch_size, seed, position, workers, device)
        return
    while True:
        places = torch.tensor([_place(len(images), seed, p) for p in range(position, position + batch_size)])
        yield _to_device(images.take(places), device)
        position += batch_size


def _loaded(
    images: ImageSet, batch_size: int, seed: int, position: int, workers: int, device: torch.device | str
) -> Iterator[Tensor]:
    pin = torch.device(device).type == "cuda"
    loader = DataLoader(
        _InOrder(images, seed),
        batch_sampler=_Positions(position, batch_size),
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
    """Images by their position in the endless order."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.seed = images, seed

    def __getitem__(self, position: int) -> Tensor:
        return self.images[_place(len(self.images), self.seed, position)]


class _Positions(Sampler[list[int]]):
    def __init__(self, start: int, batch_size: int) -> None:
        self.start, self.batch_size = start, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            yield list(range(position, position + self.batch_size))
            position += self.batch_size

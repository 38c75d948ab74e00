"""The real images that an evaluation compares with: which, at which sizes, described once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.config import Config
from infdiff.coordinates import Size
from infdiff.data.batches import first_batches
from infdiff.data.demo import DEMO_PATH
from infdiff.data.image_set import ImageSet, split
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.evaluation.cache import kept_description
from infdiff.images.transforms import RESIZE_FILTER, size_of_crop
from infdiff.metrics.compare import FEWEST, Described, describe
from infdiff.metrics.features import FeatureNetwork

SPLITS = ("train", "val", "all")
_BATCH = 64


@dataclass(frozen=True)
class Part:
    """Some images of one or more stores, in order."""

    pieces: tuple[tuple[ImageStore, list[int]], ...]

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self.pieces)

    @property
    def formats(self) -> tuple[str, ...]:
        """How they are encoded: of png, webp, jpeg, raw."""
        return tuple(sorted({store.header.format for store, _ in self.pieces}))

    def first(self, count: int) -> Part:
        """The first of them, at most `count`."""
        pieces = []
        for store, indices in self.pieces:
            pieces.append((store, indices[:count]))
            count -= len(pieces[-1][1])
        return Part(tuple(pieces))

    def take(self, numbers: Sequence[int], size: Size) -> Tensor:
        """(B, 3, H, W) uint8 images by their numbers in this part, cropped to the aspect ratio and resized."""
        every = [(store, index) for store, indices in self.pieces for index in indices]
        return torch.stack([ImageSet(store, [index], size)[0] for store, index in (every[n] for n in numbers)])

    def batches(self, size: Size) -> Iterator[Tensor]:
        """(B, 3, H, W) uint8 of all of them, cropped to the aspect ratio of `size` and resized, antialiased."""
        for store, indices in self.pieces:
            yield from first_batches(ImageSet(store, indices, size), _BATCH, len(indices), torch.device("cpu"))

    @cached_property
    def sizes(self) -> set[Size]:
        """Those that the images are stored at."""
        found: set[Size] = set()
        for store, indices in self.pieces:
            if store.header.size is not None:
                found.add(store.header.size)
            else:
                found |= {(image.height, image.width) for image in map(store.read, indices)}
        return found

    def fitting(self, size: Size) -> Size:
        """`size`, or where an image holds fewer pixels, what is left of the smallest cropped to that aspect ratio."""
        return min([size, *(size_of_crop(whole, size) for whole in self.sizes)])

    @cached_property
    def fingerprint(self) -> str:
        """Tells this content from any other."""
        return "+".join(store.fingerprint(indices) for store, indices in self.pieces)


@dataclass(frozen=True)
class RealImages:
    """The images compared with, and those that a model was trained on and that it never saw."""

    chosen: Part
    train: Part
    held_out: Part
    where: str
    split: str

    def about(self) -> dict[str, Any]:
        """Which they are, in plain values."""
        return {
            "data": self.where,
            "split": self.split,
            "count": len(self.chosen),
            "formats": list(self.chosen.formats),
            "resized": f"{RESIZE_FILTER}, antialiased",
            "fingerprint": self.chosen.fingerprint,
        }


def open_real_images(
    config: Config, *, data: Path | None, held_out: Path | None, choice: str | None, default: str
) -> RealImages:
    """A run's own data, or those at `data`, of which `held_out` says the unseen ones.

    choice: of SPLITS; where nothing is chosen, the images of `data`, and `default` of the run's own. Without
    `held_out`, a store is divided as training divides it: crops of one photograph stay together. Raises UserError when
    a store is missing, is not ours, or is too small to be divided or compared with.
    """
    own = data is None
    store = ImageStore(config.data.path or DEMO_PATH if own else data)
    unseen = (config.data.validation_path or None) if own and held_out is None else held_out
    if unseen is not None:
        other = ImageStore(unseen)
        train, rest = Part(((store, list(range(len(store)))),)), Part(((other, list(range(len(other)))),))
    else:
        first, second = split(store, config.data.validation_fraction, config.seed)
        train, rest = Part(((store, first),)), Part(((store, second),))
    choice = choice or (default if own else "all" if unseen is None else "train")
    chosen = {"train": train, "val": rest, "all": Part(train.pieces + rest.pieces)}[choice]
    if len(chosen) < FEWEST:
        raise UserError(f"{store.path}: {len(chosen)} real images ({choice}): comparing takes at least {FEWEST}")
    return RealImages(chosen, train, rest, store.path, choice)


def describe_real(
    network: FeatureNetwork,
    part: Part,
    size: Size,
    on_images: Callable[[int], object] = lambda count: None,
) -> Described:
    """The description of real images at a size that all of them reach, from the disk if it was made before."""
    key = ("real", part.fingerprint, size, RESIZE_FILTER, network.name, network.version)
    return kept_description(key, lambda: describe(network, part.batches(size), on_images))

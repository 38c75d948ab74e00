"""Real images that an evaluation compares with, and their cached descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.config.settings import Config
from infdiff.coordinates import Size
from infdiff.data.batches import first_batches
from infdiff.data.demo import DEMO_PATH
from infdiff.data.fields import FieldDescription
from infdiff.data.image_set import ImageSet, split
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.evaluation.cache import cached_description
from infdiff.evaluation.patches import PatchCutter
from infdiff.images.transforms import RESIZE_FILTER, size_of_crop
from infdiff.metrics.compare import FEWEST, Description, describe
from infdiff.metrics.features import FeatureNetwork
from infdiff.runs.fields import normalised_as

SPLITS = ("train", "val", "all")
_BATCH = 64


@dataclass(frozen=True)
class StoredImages:
    """Images of one or more stores, in order."""

    pieces: tuple[tuple[ImageStore, list[int]], ...]

    @classmethod
    def all_of(cls, store: ImageStore) -> StoredImages:
        """Return all images of a store."""
        return cls(((store, list(range(len(store)))),))

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self.pieces)

    @property
    def formats(self) -> tuple[str, ...]:
        """Encodings of the images: some of png, webp, jpeg, raw."""
        return tuple(sorted({store.header.format for store, _ in self.pieces}))

    def first(self, count: int) -> StoredImages:
        """Return the first images, at most `count`."""
        pieces = []
        for store, indices in self.pieces:
            pieces.append((store, indices[:count]))
            count -= len(pieces[-1][1])
        return StoredImages(tuple(pieces))

    def spread(self, count: int) -> StoredImages:
        """Return `count` images at even distances, at most all."""
        every, total = self._every, len(self)
        count = min(count, total)
        return StoredImages(
            tuple((store, [index]) for store, index in (every[n * total // count] for n in range(count)))
        )

    @cached_property
    def _every(self) -> list[tuple[ImageStore, int]]:
        return [(store, index) for store, indices in self.pieces for index in indices]

    def take(self, numbers: Sequence[int], size: Size) -> Tensor:
        """Return images (B, C, H, W) by their place, cropped to the aspect ratio of `size` and resized."""
        return torch.stack([ImageSet(store, [index], size)[0] for store, index in (self._every[n] for n in numbers)])

    def label_rows(self, numbers: Sequence[int]) -> Tensor:
        """Return labels (B, label_dim) of images by their place. Raises UserError for a store without."""
        return torch.cat([store.label_rows([index]) for store, index in (self._every[n] for n in numbers)])

    def batches(self, size: Size) -> Iterator[Tensor]:
        """Yield batches (B, 3, H, W) uint8 of all images, cropped to the aspect ratio of `size` and resized."""
        for store, indices in self.pieces:
            yield from first_batches(ImageSet(store, indices, size), _BATCH, len(indices), torch.device("cpu"))

    @cached_property
    def sizes(self) -> set[Size]:
        """Sizes that the images are stored at."""
        found: set[Size] = set()
        for store, indices in self.pieces:
            if store.header.size is not None:
                found.add(store.header.size)
            else:
                found |= {store.size_of(index) for index in indices}
        return found

    def fitting(self, size: Size) -> Size:
        """Return the largest size up to `size` that every image reaches when cropped to the aspect ratio of `size`."""
        return min([size, *(size_of_crop(whole, size) for whole in self.sizes)])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content."""
        return "+".join(store.fingerprint(indices) for store, indices in self.pieces)


@dataclass(frozen=True)
class RealImages:
    """The images compared with, and the training and held-out images of a model."""

    chosen: StoredImages
    train: StoredImages
    validation: StoredImages
    where: str
    split: str

    def about(self) -> dict[str, Any]:
        """Return a record of the images, for JSON."""
        return {
            "data": self.where,
            "split": self.split,
            "count": len(self.chosen),
            "formats": list(self.chosen.formats),
            "resized": f"{RESIZE_FILTER}, antialiased",
            "fingerprint": self.chosen.fingerprint,
        }


def open_real_images(
    config: Config,
    *,
    data: Path | None,
    held_out: Path | None,
    choice: str | None,
    default: str,
    field: FieldDescription | None = None,
) -> RealImages:
    """Open the data of a run, or the store at `data`; `held_out` names a store of held-out images.

    choice: one of SPLITS; by default all images of `data`, or the split `default` of the run's data. Without
    `held_out`, a store is divided as for training, with crops of one photograph kept together. field: of a run of
    fields, in whose normalisation networks see them. Raises UserError when a store is missing, is no image store, is
    one of images of another kind, or is too small.
    """

    def opened(path: str | Path) -> ImageStore:
        return ImageStore(path) if field is None else normalised_as(ImageStore(path), field)

    own = data is None
    store = opened(config.data.path or DEMO_PATH if data is None else data)
    other = (config.data.validation_path or None) if own and held_out is None else held_out
    if other is not None:
        train, validation = StoredImages.all_of(store), StoredImages.all_of(opened(other))
    else:
        first, second = split(store, config.data.validation_fraction, config.seed)
        train, validation = StoredImages(((store, first),)), StoredImages(((store, second),))
    choice = choice or (default if own else "all" if other is None else "train")
    chosen = {"train": train, "val": validation, "all": StoredImages(train.pieces + validation.pieces)}[choice]
    if len(chosen) < FEWEST:
        raise UserError(f"{store.path}: {len(chosen)} real images ({choice}): comparing takes at least {FEWEST}")
    return RealImages(chosen, train, validation, store.path, choice)


def describe_real(
    network: FeatureNetwork,
    stored: StoredImages,
    size: Size,
    on_images: Callable[[int], object] = lambda count: None,
) -> Description:
    """Return the description of real images at a size that all of them reach, cached on disk."""
    key = ("real", stored.fingerprint, size, RESIZE_FILTER, network.name, network.version)
    return cached_description(key, lambda: describe([network], stored.batches(size), on_images)[0])


def describe_real_patches(
    network: FeatureNetwork,
    stored: StoredImages,
    size: Size,
    cutter: PatchCutter,
    count: int,
    on_images: Callable[[int], object] = lambda count: None,
) -> Description:
    """Return the description of `count` patches of real images at a size that all of them reach, cached on disk."""
    key = ("patches", stored.fingerprint, size, RESIZE_FILTER, network.name, network.version, cutter, count)

    def make() -> Description:
        patches = cutter.batches(lambda numbers: stored.take(numbers, size), len(stored), size, count)
        return describe([network], patches, on_images)[0]

    return cached_description(key, make)

"""Example images shown next to the metrics in a report: samples, their nearest training images, and spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.evaluation.real_images import StoredImages
from infdiff.images.write import contact_sheet
from infdiff.metrics.compare import Description
from infdiff.metrics.neighbours import nearest

# Limits of a sheet: its width in pixels, the least and the most columns, and its rows.
_WIDEST = 2048
_COLUMNS = (2, 8)
_ROWS = 2
_NEIGHBOURS = 3


@dataclass(frozen=True)
class NearestMatches:
    """An image (3, H, W) uint8, the training images (K, 3, H, W) uint8 nearest to it, and their distances (K,)."""

    image: Tensor
    others: Tensor
    distances: Tensor


@dataclass(frozen=True)
class ExampleSheet:
    """Examples of the images of one row of results, which `what` and `size` identify.

    sheet: (3, H, W) uint8; captions name its rows where these differ. spectrum, real_spectrum: mean power (K,) at 2, 3,
    ... cycles a shorter side, at the size compared at.
    """

    what: str
    size: str
    sheet: Tensor | None = None
    captions: tuple[str, ...] = ()
    neighbours: tuple[NearestMatches, ...] = ()
    spectrum: Tensor | None = None
    real_spectrum: Tensor | None = None


def examples_of_images(
    images: ImageFolder,
    size: Size,
    what: str,
    described: Description,
    real: Description | None,
    train: tuple[StoredImages, Tensor] | None,
    at: Size,
) -> ExampleSheet:
    """Return the first images, and of all images those nearest to training images, with their nearest matches.

    real: None for statistics without images. train: the training images and their features (N, D), if they are known at
    `at`, the size compared at.
    """
    shown = min(len(images), _ROWS * _columns(size))
    sheet = contact_sheet(torch.stack([images.read(i, size) for i in range(shown)]), _columns(size))
    matches = []
    if train is not None:
        stored, features = train
        found = nearest(described.features, features, _NEIGHBOURS)
        for i in found.distances[:, 0].argsort()[: _COLUMNS[1]].tolist():
            others = stored.take(found.indices[i].tolist(), at)
            matches.append(NearestMatches(images.read(i, at), others, found.distances[i]))
    spectra = (one.spectra.double().mean(dim=0) if one is not None else None for one in (described, real))
    return ExampleSheet(what, format_size(size), sheet, (), tuple(matches), *spectra)


def examples_of_pairs(
    truth: Callable[[Sequence[int]], Tensor],
    methods: Mapping[str, Callable[[Sequence[int]], Tensor]],
    numbers: Sequence[int],
    size: Size,
) -> ExampleSheet:
    """Return the first true images in a row, and the images of each method in a row below."""
    shown = numbers[: _columns(size)]
    rows = [truth(shown), *(images_of(shown) for images_of in methods.values())]
    sheet = contact_sheet(torch.cat(rows), len(shown))
    return ExampleSheet(", ".join(methods), format_size(size), sheet, ("truth", *methods))


def _columns(size: Size) -> int:
    return max(_COLUMNS[0], min(_COLUMNS[1], _WIDEST // size[1]))

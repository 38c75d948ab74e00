"""Which images of an evaluation a person is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.evaluation.looks import Beside, Look
from infdiff.evaluation.real_images import Part
from infdiff.images.write import contact_sheet
from infdiff.metrics.compare import Described
from infdiff.metrics.neighbours import nearest

# A sheet is at most so many pixels wide, and so many images.
_WIDEST = 2048
_COLUMNS = (2, 8)
_ROWS = 2
_NEIGHBOURS = 3


def look_at_pictures(
    pictures: ImageFolder,
    size: Size,
    what: str,
    images: Described,
    real: Described,
    train: tuple[Part, Tensor] | None,
    at: Size,
) -> Look:
    """The first pictures, and those nearest to training images of all, each with its nearest ones.

    train: the training images with their features (N, D), where they are known at `at`, the size compared at.
    """
    shown = min(len(pictures), _ROWS * _columns(size))
    sheet = contact_sheet(torch.stack([pictures.read(i, size) for i in range(shown)]), _columns(size))
    beside = []
    if train is not None:
        part, features = train
        found = nearest(images.features, features, _NEIGHBOURS)
        for i in found.distances[:, 0].argsort()[: _COLUMNS[1]].tolist():
            others = part.take(found.indices[i].tolist(), at)
            beside.append(Beside(pictures.read(i, at), others, found.distances[i]))
    spectra = (described.spectra.double().mean(dim=0) for described in (images, real))
    return Look(what, format_size(size), sheet, (), tuple(beside), *spectra)


def look_at_pairs(
    truth: Callable[[Sequence[int]], Tensor],
    methods: dict[str, Callable[[Sequence[int]], Tensor]],
    numbers: Sequence[int],
    size: Size,
) -> Look:
    """The truth of the first numbers in a row, and under it the images of each method."""
    shown = numbers[: _columns(size)]
    rows = [truth(shown), *(images_of(shown) for images_of in methods.values())]
    sheet = contact_sheet(torch.cat(rows), len(shown))
    return Look(", ".join(methods), format_size(size), sheet, ("truth", *methods))


def _columns(size: Size) -> int:
    return max(_COLUMNS[0], min(_COLUMNS[1], _WIDEST // size[1]))

"""Example images shown next to the metrics in a report: samples, their nearest training images, and spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.fields import FieldDescription
from infdiff.data.image_folder import ImageFolder
from infdiff.evaluation.real_images import StoredImages
from infdiff.images.colour import coloured
from infdiff.images.write import contact_sheet
from infdiff.metrics.compare import Description
from infdiff.metrics.fields import FieldStatistics
from infdiff.metrics.neighbours import nearest
from infdiff.metrics.spectrum import FIRST_RING

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
class Curves:
    """A function (K,) of the images and the same of the real ones, at `places`, as one panel of a plot.

    kind: "spectrum", mean power over cycles a shorter side, or "variogram", over distances in `unit`; both at the size
    compared at.
    """

    kind: str
    panel: str
    places: tuple[float, ...]
    images: Tensor
    real: Tensor
    unit: str = "pixels"

    @classmethod
    def of_spectra(cls, panel: str, images: Tensor, real: Tensor) -> Curves:
        """Mean power (K,) in the rings of `metrics.spectrum`."""
        return cls("spectrum", panel, tuple(range(FIRST_RING, FIRST_RING + len(images))), images, real)


@dataclass(frozen=True)
class ExampleSheet:
    """Examples of the images of one row of results, which `what` and `size` identify.

    sheet: (3, H, W) uint8; captions name its rows where these differ.
    """

    what: str
    size: str
    sheet: Tensor | None = None
    captions: tuple[str, ...] = ()
    neighbours: tuple[NearestMatches, ...] = ()
    curves: tuple[Curves, ...] = ()


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
    curves = []
    if real is not None:
        curves = [
            Curves.of_spectra(format_size(size), *(one.spectra.double().mean(dim=0) for one in (described, real)))
        ]
    return ExampleSheet(what, format_size(size), sheet, (), tuple(matches), tuple(curves))


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


def examples_of_fields(
    made: Tensor,
    real: Tensor,
    field: FieldDescription,
    size: Size,
    statistics: tuple[FieldStatistics, FieldStatistics],
    unit: str,
) -> ExampleSheet:
    """Return fields (N, C, H, W) of `size` in units above as many real ones, and the curves of both sets.

    real: of any size, up to that one. statistics: of the fields and of the real ones; unit: of their distances.
    """
    columns = min(len(made), len(real), max(1, _columns(size) // (1 if field.channels == 3 else field.channels)))
    real = F.interpolate(real[:columns], size, mode="nearest")
    limits = field.limits_in_units
    sheet = contact_sheet(torch.cat([coloured(one[:columns], limits) for one in (made, real)]), columns)
    curves = []
    for channel in range(field.channels):
        panel = f"{field.label(channel)}, {format_size(size)}"
        spectra = [one.spectrum for one in statistics]
        if spectra[0] is not None and spectra[1] is not None:
            curves.append(Curves.of_spectra(panel, spectra[0][channel], spectra[1][channel]))
        variograms = [one.variogram[channel] for one in statistics]
        curves.append(Curves("variogram", panel, statistics[0].distances, variograms[0], variograms[1], unit))
    return ExampleSheet("generated", format_size(size), sheet, ("generated", "real"), (), tuple(curves))


def _columns(size: Size) -> int:
    return max(_COLUMNS[0], min(_COLUMNS[1], _WIDEST // size[1]))

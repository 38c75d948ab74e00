"""T x_0 at some points alone, from a smooth copy of the image: the cost of a point does not depend on the pixels.

A Gaussian is two narrower ones after each other. The copy is the image after the first, read on a lattice just as fine
as that allows; the second is a mean over a small window of the copy. Where T is hardly wider than a pixel, the window
is one of the image's own pixels, and T as it is defined.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.window import Window, windows

# Width of the first Gaussian in cells of the copy, and the least of the second: of a wave of amplitude 1, whatever its
# length, at most 5e-4 is then taken for another.
_FIRST_STD = 0.9
_LEAST_STD = 0.85
_WHOLE = math.hypot(_FIRST_STD, _LEAST_STD)
# A window ends after this many standard deviations.
_TRUNCATE = 4.0
# Up to this width of T in pixels, windows of pixels are about as small as a copy would make them.
_NARROW = 1.5


class SmoothCopy(NamedTuple):
    """The lattice of a smooth copy of images of one size, or that of their pixels."""

    cells: Size
    second: tuple[float, float]  # the width in cells of what is left of T, along (rows, columns)
    of_pixels: bool  # the image itself is read

    @classmethod
    def for_mollifier(cls, mollifier: Mollifier, size: Size) -> SmoothCopy:
        """The lattice that T wants for images of `size`: the coarsest, or their pixels where T is narrow."""
        std = mollifier.std(size)
        if min(std) <= _NARROW:
            return cls(size, std, True)
        height, width = (math.ceil(_WHOLE * n / s) for n, s in zip(size, std, strict=True))
        return cls((height, width), _left(mollifier, (height, width)), False)

    @classmethod
    def of_cells(cls, cells: Size, mollifier: Mollifier) -> SmoothCopy | None:
        """A copy with a lattice of `cells` that is already there; None where it is too coarse for T."""
        if min(mollifier.std(cells)) < _WHOLE:
            return None
        return cls(cells, _left(mollifier, cells), False)

    def make(self, image: Tensor) -> Tensor:
        """Smooth an image (3, H, W) uint8: (h, w, 3) float16 of values in [-1, 1]."""
        return smooth_copy(image, self.cells)

    def read(self, source: Tensor, ids: Tensor, size: Size) -> Tensor:
        """T x_0 at points `ids` (L,): (L, 3) float32, from a copy, or from the pixels (H, W, 3) uint8 of the image."""
        rows, columns = (
            _window(p, n, std, self.of_pixels, source.device)
            for p, n, std in zip(size, self.cells, self.second, strict=True)
        )
        row = torch.div(ids, size[1], rounding_mode="floor")
        column = ids - row * size[1]
        places, weights = columns.place[column], columns.weight[column].unsqueeze(2)  # (L, taps), (L, taps, 1)
        total = torch.zeros(len(ids), source.shape[2], device=source.device)
        for place, weight in zip(rows.place.unbind(1), rows.weight.unbind(1), strict=True):
            # Contiguous, as sums of another layout, such as that of images in memory, differ in the last bit.
            values = source[place[row].unsqueeze(1), places].contiguous()  # (L, taps, 3)
            total += (values.float() * weights).sum(dim=1) * weight[row].unsqueeze(1)
        return total / 127.5 - 1 if self.of_pixels else total

    @property
    def reach(self) -> Size:
        """Rows and columns of the lattice that a point reads to either side of its own."""
        rows, columns = (math.ceil(_TRUNCATE * std) for std in self.second)
        return rows, columns


def smooth_copy(image: Tensor, cells: Size) -> Tensor:
    """An image (3, H, W) uint8 after the first Gaussian, at the centres of `cells`: (h, w, 3) float16 in [-1, 1]."""
    size = (image.shape[1], image.shape[2])
    down, across = (_first(p, n, image.device) for p, n in zip(size, cells, strict=True))
    # Pixels become floats a channel at a time.
    planes = [(down @ (plane.float() / 127.5 - 1)) @ across.mT for plane in image]
    return torch.stack(planes, dim=-1).half()


def _left(mollifier: Mollifier, cells: Size) -> tuple[float, float]:
    """The width of T in cells that the first Gaussian leaves for the second."""
    rows, columns = (math.sqrt(std**2 - _FIRST_STD**2) for std in mollifier.std(cells))
    return rows, columns


@lru_cache(maxsize=16)
def _first(pixels: int, cells: int, device: torch.device) -> Tensor:
    """(cells, pixels): the first Gaussian along an axis."""
    # A cell's window of pixels is a pixel's window of cells with the roles exchanged.
    std = _FIRST_STD * pixels / cells
    window = windows(cells, pixels, std, 2 * math.ceil(_TRUNCATE * std), device)
    weight = window.weight / window.weight.sum(dim=1, keepdim=True)
    matrix = torch.zeros(cells, pixels, dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, window.place, weight).float()


@lru_cache(maxsize=64)
def _window(pixels: int, cells: int, std: float, of_pixels: bool, device: torch.device) -> Window:
    """The windows of the second Gaussian; of T itself, as `Mollifier` has it, on the image's own pixels."""
    if std <= 0:
        own = torch.arange(pixels, device=device)[:, None]
        return Window(own, torch.ones(pixels, 1, device=device))
    taps = 2 * int(_TRUNCATE * std + 0.5) + 1 if of_pixels else 2 * math.ceil(_TRUNCATE * std)
    window = windows(pixels, cells, std, taps, device)
    return Window(window.place, (window.weight / window.weight.sum(dim=1, keepdim=True)).float())

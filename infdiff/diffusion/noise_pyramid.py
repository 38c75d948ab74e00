"""Noise of one image at every size: white noise on a pyramid of lattices, each of which refines the one above it.

A lattice has twice as many cells along each side as the one before. Its values are white noise whose smooth part is the
coarser lattice's noise, and whose rest is new: an orthonormal wavelet transform, run backwards. So finer pixels add
detail to the noise that coarser ones have shown, and any region of any lattice is made by itself, from hashes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.point_noise import mix, noise_window, normals

# Widths of T in cells from which up the lattice resolves it.
_RESOLVED_STD = 0.75
# Fine cells on either side of a coarse one that its value reaches: what is left out is less than a thousandth.
_REACH = 20

# Rows or columns from the first to, not including, the second.
Span = tuple[int, int]


@dataclass(frozen=True)
class NoisePyramid:
    """The noise of one image: a function of its key and of the place.

    key: () int64, as `point_noise.draw_keys` draws them. top: cells (H, W) of level 0; level n has 2^n times as many.
    """

    key: Tensor
    top: Size
    channels: int = 3

    def size(self, level: int) -> Size:
        """Cells (H, W) of a level."""
        return self.top[0] << level, self.top[1] << level

    def white(self, level: int, rows: Span, columns: Span) -> Tensor:
        """White noise of variance 1 in a region of a level: (channels, h, w) float32."""
        if level == 0:
            return self._drawn(0, rows, columns, self.channels)
        size = self.size(level)
        down, across = _refinement(size[0], rows), _refinement(size[1], columns)
        smooth = self.white(level - 1, down.span, across.span)
        beside, below, both = self._drawn(level, down.span, across.span, 3 * self.channels).chunk(3)
        low, high = across.low.to(smooth).mT, across.high.to(smooth).mT
        by_rows = down.low.to(smooth) @ torch.cat([smooth, beside]), down.high.to(smooth) @ torch.cat([below, both])
        low_part, high_part = (by_rows[0] + by_rows[1]).chunk(2)
        return low_part @ low + high_part @ high

    def mollified(self, level: int, rows: Span, columns: Span, mollifier: Mollifier) -> Tensor:
        """T xi at the pixels of a region of a level: (channels, h, w) float32, of the law of `Mollifier.noise`."""
        size = self.size(level)
        stds = mollifier.std(size)
        if not mollifier.sigma:
            return self.white(level, rows, columns)
        finer = max(0, math.ceil(math.log2(_RESOLVED_STD / min(stds))))
        fine = self.size(level + finer)
        down, across = (
            _reading(n, cells, std * 2**finer, mollifier.sigma, span)
            for n, cells, std, span in zip(size, fine, stds, (rows, columns), strict=True)
        )
        white = self.white(level + finer, down.span, across.span)
        return down.weights.to(white) @ white @ across.weights.to(white).mT

    def _drawn(self, level: int, rows: Span, columns: Span, count: int) -> Tensor:
        """Normal values that are new on a level, in cells of the level above it: (count, h, w)."""
        width = self.top[1] << max(level - 1, 0)
        row, column = (torch.arange(*span, device=self.key.device) for span in (rows, columns))
        values = normals(
            mix(self.key ^ mix(torch.tensor(level + 1, device=self.key.device))), row[:, None] * width + column, count
        )
        return values.permute(2, 0, 1)


@dataclass(frozen=True)
class _Refinement:
    """Cells of a line from those of the coarser one in `span`: low @ coarse + high @ new."""

    span: Span
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class _Reading:
    """Pixels of a line from the finer cells in `span`: weights @ cells."""

    span: Span
    weights: Tensor


@lru_cache(maxsize=64)
def _refinement(cells: int, fine: Span) -> _Refinement:
    """Matrices of one step of the transform, for cells `fine` of a line of `cells`.

    Beyond an end the noise is reflected about it, as T reads it; the part that is new changes its sign there, since the
    high-pass filter is antisymmetric.
    """
    coarse_cells = cells // 2
    number = torch.arange(*fine)
    # Twice the distance of a fine cell from a coarse one's centre is an odd number.
    first = torch.div(number - _REACH, 2, rounding_mode="floor")
    coarse = first[:, None] + torch.arange(_REACH + 1)
    distance = number[:, None] - 2 * coarse - 0.5
    taps = torch.where(distance.abs() < _REACH, _filter()[(distance.abs() - 0.5).long().clamp(max=_REACH - 1)], 0.0)
    signs = 1.0 - 2.0 * (number[:, None] % 2)
    folded = coarse % (2 * coarse_cells)
    mirrored = folded >= coarse_cells
    place = torch.where(mirrored, 2 * coarse_cells - 1 - folded, folded)
    span = int(place.min()), int(place.max()) + 1
    shape = len(number), span[1] - span[0]
    low = taps.new_zeros(shape).scatter_add_(1, place - span[0], taps)
    turned = torch.where(mirrored, -1.0, 1.0).to(taps)
    high = taps.new_zeros(shape).scatter_add_(1, place - span[0], taps * signs * turned)
    return _Refinement(span, low.float(), high.float())


@lru_cache(maxsize=64)
def _reading(pixels: int, cells: int, std: float, sigma: float, span: Span) -> _Reading:
    window = noise_window(pixels, cells, std, sigma, torch.device("cpu"))
    place, weight = window.place[span[0] : span[1]], window.weight[span[0] : span[1]]
    read = int(place.min()), int(place.max()) + 1
    weights = weight.new_zeros(len(place), read[1] - read[0]).scatter_add_(1, place - read[0], weight)
    return _Reading(read, weights)


@lru_cache(maxsize=1)
def _filter() -> Tensor:
    """(_REACH,) float64: taps of Meyer's low-pass filter at distances 1/2, 3/2, ... from its centre.

    |H(w)|^2 + |H(w + pi)|^2 = 2, so that shifts by two cells are orthonormal, and with them all of the transform.
    """
    count = 4096
    frequency = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    x = (3 * frequency / math.pi - 1).clamp(0, 1)
    step = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
    response = math.sqrt(2) * torch.cos(math.pi / 2 * step)
    distance = torch.arange(_REACH, dtype=torch.float64) + 0.5
    taps = (response * torch.cos(frequency * distance[:, None])).mean(dim=1)
    return taps * (math.sqrt(2) / (2 * taps.sum()))

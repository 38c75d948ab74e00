"""T xi at some points alone: mollified noise whose cost follows the points, not the pixels.

White noise lives on a lattice of cells over the unit square, as fine as the mollifier needs and the same for images of
every size. The value in a cell is a hash of an image's key and the cell's number: nothing is stored, and only the cells
near the points are ever made. T xi at a point is the Gaussian mean of a window of cells around it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.window import Window, windows

# Widths of T in cells from which up the covariance of T xi is that of the function to 1 %.
_RESOLVED_STD = 0.75
# The Gaussian ends after this many standard deviations.
_TRUNCATE = 4.0

# Levels of a normal variable: 16 bits of a hash name one.
_LEVELS = 1 << 16
_BITS, _NORMALS_A_HASH = 16, 4
# SplitMix64 (Steele, Lea and Flood 2014), as signed numbers. Products wrap around.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def draw_keys(batch: int, generator: torch.Generator) -> Tensor:
    """Draw a key (batch,) int64 of the noise of each image, on the generator's device."""
    return torch.randint(-(2**63), 2**63 - 1, (batch,), device=generator.device, generator=generator)


def noise_at(mollifier: Mollifier, ids: Tensor, size: Size, keys: Tensor, channels: int) -> Tensor:
    """T xi at points `ids` (B, L) of images of `size`: (B, L, channels) float32.

    A function of each image's key (B,), as `draw_keys`, and of the place: the same bits whichever other points there
    are, and the same function at every size. Of the law of `Mollifier.noise`, with its reflecting boundaries.
    """
    if not mollifier.sigma:
        return normals(keys[:, None], ids, channels)
    cells, stds = _lattice(mollifier)
    down, across = (
        noise_window(p, n, std, sigma, ids.device)
        for p, n, std, sigma in zip(size, cells, stds, (mollifier.sigma, mollifier.sigma), strict=True)
    )
    row = torch.div(ids, size[1], rounding_mode="floor")
    column = ids - row * size[1]
    places, weights = across.place[column], across.weight[column]  # (B, L, taps)
    total: Tensor | None = None
    for place, weight in zip(down.place.unbind(1), down.weight.unbind(1), strict=True):
        values = normals(keys[:, None, None], place[row].unsqueeze(2) * cells[1] + places, channels)
        # Term after term: the order of a sum over an axis could depend on the number of points.
        for tap in range(values.shape[2]):
            term = values[:, :, tap] * (weight[row] * weights[..., tap]).unsqueeze(2)
            total = term if total is None else total.add_(term)
    assert total is not None
    return total


def _lattice(mollifier: Mollifier) -> tuple[Size, tuple[float, float]]:
    """The number of cells along (rows, columns), and the mollifier's standard deviation in cells."""
    height, width = (math.ceil(_RESOLVED_STD * n / mollifier.sigma) for n in mollifier.base)
    return (height, width), mollifier.std((height, width))


@lru_cache(maxsize=64)
def noise_window(pixels: int, cells: int, std: float, sigma: float, device: torch.device) -> Window:
    """The window of each pixel of an axis, weighted so that T xi has its variance away from the border."""
    window = windows(pixels, cells, std, round(2 * _TRUNCATE * std), device)
    # The integral of the square of a Gaussian of standard deviation sigma is 1 / (2 sigma sqrt(pi)).
    variance = 1 / (2 * math.sqrt(math.pi) * sigma)
    norm = window.weight.double().square().sum(dim=1, keepdim=True).rsqrt() * math.sqrt(variance)
    return Window(window.place, (window.weight * norm).float())


def normals(key: Tensor, cell: Tensor, channels: int) -> Tensor:
    """Standard normal values of cells (...): (..., channels) float32. key: broadcasts with the cells' numbers."""
    table = _quantiles(cell.device)
    hashes = -(-channels // _NORMALS_A_HASH)
    values = []
    for channel in range(channels):
        part = channel % _NORMALS_A_HASH
        if part == 0:
            mixed = mix(key + (cell * hashes + (channel // _NORMALS_A_HASH + 1)) * _GAMMA)
        values.append(table[(mixed >> (part * _BITS)) & (_LEVELS - 1)])
    return torch.stack(values, dim=-1)


def mix(state: Tensor) -> Tensor:
    """SplitMix64's output for a state: int64, every bit of which depends on every bit of the state."""
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """A shift to the right that brings in zeros, also for negative numbers."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


@lru_cache(maxsize=8)
def _quantiles(device: torch.device) -> Tensor:
    """(_LEVELS,) float32: equally likely values of a normal variable, of variance 1.

    Reading them yields the same bits everywhere, where a formula's logarithms and cosines differ in the last one.
    """
    level = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    value = torch.special.ndtri(level)
    return (value / value.square().mean().sqrt()).float().to(device)

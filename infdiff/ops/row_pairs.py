"""Pairs of neighbouring points where few pixels are points, on a CPU: by bisection of the ascending ids.

Nothing here has as many values as the image has pixels: the cost is that of the points and of the rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.gpu import launch
from infdiff.ops.routing import DENSE_ABOVE_DENSITY

# From this many pixels for a point up, as `routing.DENSE_ABOVE_DENSITY` has it.
_PIXELS_A_POINT = round(1 / DENSE_ABOVE_DENSITY)


class Pairs(NamedTuple):
    """The pairs of points that are a number of rows apart. Points (B, L) are counted over all images."""

    row: int  # of the window
    of: Tensor  # (P,): the point in the window's middle, ascending
    near: Tensor  # (P,): the other one, ascending for each of the former
    column: Tensor  # (P,): of the window


def bisects(ids: Tensor, size: Size) -> bool:
    """Return True where points `ids` (B, L) are few enough to find neighbours by bisection, without a lattice index."""
    if ids.device.type != "cpu" or launch.serves_points(ids):
        return False
    return size[0] * size[1] >= _PIXELS_A_POINT * ids.shape[1]


def row_pairs(ids: Tensor, size: Size, window: Size) -> Iterator[Pairs]:
    """Yield the pairs of points `ids` (B, L) within a window of odd sides, row by row."""
    height, width = size
    image = (torch.arange(len(ids))[:, None] * (height * width)).expand_as(ids).flatten()
    pixel = ids.flatten()
    row = torch.div(pixel, width, rounding_mode="floor")
    column, place = pixel - row * width, image + pixel  # places ascend over all images
    reach = window[0] // 2, window[1] // 2
    left, right = (column - reach[1]).clamp(min=0), (column + reach[1]).clamp(max=width - 1)
    numbers = torch.arange(len(place))
    for step in range(-reach[0], reach[0] + 1):
        line = row + step
        first = torch.searchsorted(place, image + line * width + left)
        count = torch.searchsorted(place, image + line * width + right, right=True) - first
        count = count.where((line >= 0) & (line < height), 0)
        of = numbers.repeat_interleave(count)
        near = torch.arange(len(of)) + (first - count.cumsum(0) + count)[of]
        yield Pairs(step + reach[0], of, near, column[near] - column[of] + reach[1])


def pair_by_pair(features: Tensor, kappa: Tensor, ids: Tensor, size: Size) -> Tensor:
    """`tap_by_tap` over the pairs alone, in the same order: (B, L, C) in float32 or wider."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    values = features.flatten(0, 1).to(dtype)
    taps = kappa.to(dtype).permute(1, 2, 0)  # (Kh, Kw, C or 1)
    total = torch.zeros_like(values)
    for row, of, near, column in row_pairs(ids, size, (taps.shape[0], taps.shape[1])):
        total.index_add_(0, of, values[near] * taps[row][column])
    return total.view_as(features)


def pair_by_pair_gradient(features: Tensor, grad: Tensor, ids: Tensor, size: Size, window: Size) -> Tensor:
    """`tap_by_tap_gradient` over the pairs alone: (C, Kh, Kw)."""
    values, grads = features.flatten(0, 1), grad.flatten(0, 1)
    kappa = grad.new_zeros(*window, grad.shape[2])
    for row, of, near, column in row_pairs(ids, size, window):
        kappa[row].index_add_(0, column, values[near] * grads[of])
    return kappa.permute(2, 0, 1).contiguous()

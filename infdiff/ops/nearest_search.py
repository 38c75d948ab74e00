"""The search for the points nearest to each centre of a grid, in PyTorch.

Points are pixels: around a centre, the lattice index is read at the nearest pixels, in order of distance, until the
points read are enough. Centres at the same place within a pixel share one order. Where few pixels are points, buckets
of points are read instead. On a CPU, where calls of small arrays cost the most, NumPy reads the index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, gcd, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.bucket_search import Buckets
from infdiff.ops.choice import COLUMNS, NEAREST, aspect_of, choose, offsets, third_distance
from infdiff.ops.lattice_index import lattice_index_ref

# Points that the pixels read first hold on average, and then those read for the centres that had too few.
_POINTS_READ = (6, 16, 64)
# Buckets that are read first lie so far from a centre's own, and then those for the centres that had too few.
_REACHES = (1, 3)
# About what a processor's cache holds.
_PIXELS_AT_ONCE = 1 << 18
# Up to this many pixels a point, to make the index and to read it takes less time than buckets.
_PIXELS_A_POINT = 128
# Pixels that are read in the time of one distance to a point.
_PIXELS_A_DISTANCE = 16
# Discs of up to this many pixels together are kept: at a rate of points they are the same in every step of training.
_KEPT_PIXELS = 1 << 16
_CENTRES_AT_ONCE = 1 << 12
_DISTANCES_AT_ONCE, _DISTANCES_AT_ONCE_ON_DEVICES = 1 << 20, 1 << 25

_Numbers = np.ndarray[Any, Any]


def search(ids: Tensor, index: Tensor | None, size: Size, grid: Size, share: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (B * G*K, COLUMNS) int64 and weights float32 of the nearest points, where `share` (B, G*K) is 0.

    ids (B, L), index (B, H, W), or None where few pixels are points.
    """
    batch, cells = share.shape
    if ids.device.type != "cpu":  # to take some of the cells, one would wait for the device
        return among_rows(ids, size, grid)
    number = torch.zeros(batch * cells, COLUMNS, dtype=torch.int64)
    weight = torch.zeros(batch * cells, COLUMNS)
    rest = (share.flatten() == 0).nonzero()[:, 0]
    if index is None and size[0] * size[1] <= _PIXELS_A_POINT * ids.shape[1]:
        index = lattice_index_ref(ids, size)
    if index is None:
        buckets = Buckets.of(ids, size)
        for reach in _REACHES:
            parts = rest.split(_CENTRES_AT_ONCE) if len(rest) else ()
            rest = torch.cat([rest[:0], *(_in_buckets(ids, buckets, grid, reach, c, number, weight) for c in parts)])
    for points in _POINTS_READ:
        # Of few points, all are compared sooner than that many pixels are read.
        if len(rest) and index is not None and points * size[0] * size[1] < _PIXELS_A_DISTANCE * ids.shape[1] ** 2:
            disc = _disc(size, grid, points / ids.shape[1])
            down, across = disc.margin
            padded = F.pad(index, (across, across, down, down), value=-1).flatten(1).numpy()
            some = rest.split(max(1, _PIXELS_AT_ONCE // disc.step.shape[1]))
            found = number.numpy(), weight.numpy()
            rest = torch.cat([torch.from_numpy(_among_near(padded, disc, c.numpy(), *found)) for c in some])
    if len(rest):
        number[rest], weight[rest] = among_all(ids, size, grid, rest)
    return number, weight


def among_all(ids: Tensor, size: Size, grid: Size, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (N, COLUMNS) int64 and weights for centres (N,) of the B * G*K: every distance, compared."""

    def all_points(image: Tensor, column: Tensor) -> Tensor:
        return torch.arange(ids.shape[1], device=ids.device).expand(len(image), -1)

    return _among(all_points, ids.shape[1], ids, size, grid, centre)


def among_rows(ids: Tensor, size: Size, grid: Size) -> tuple[Tensor, Tensor]:
    """Numbers (B * G*K, COLUMNS) int64 and weights for all centres, of shapes that do not depend on the points.

    In a row of pixels, what is read is among the three points left of the centre, or below it, and the three right
    of it: at most two are nearer than the third of all, and of those as near one lies on either side.
    """
    height, width = size
    column = torch.arange(grid[1], device=ids.device)
    row = torch.arange(height, device=ids.device)[:, None]
    # The last pixel of a row that lies left of the centre, or on it. ids ascend, so bisection finds the point there.
    last_left = torch.div((2 * column + 1) * width - grid[1], 2 * grid[1], rounding_mode="floor")
    bound = (row * width + last_left).flatten().expand(ids.shape[0], -1).contiguous()
    last = torch.searchsorted(ids.contiguous(), bound, right=True) - 1
    number = last.unflatten(1, (height, -1)).unsqueeze(3) + torch.arange(-2, 4, device=ids.device)
    inside = number.clamp(0, ids.shape[1] - 1)
    found = torch.div(ids.gather(1, inside.flatten(1)), width, rounding_mode="floor").view_as(inside)
    present = (found == row.unsqueeze(2)) & (number == inside)
    number = number.where(present, -1).transpose(1, 2).flatten(2)  # (B, K, H * 6)
    centre = torch.arange(ids.shape[0] * grid[0] * grid[1], device=ids.device)
    return _among(lambda image, column: number[image, column], number.shape[2], ids, size, grid, centre)


def _among(
    candidates: Callable[[Tensor, Tensor], Tensor], count: int, ids: Tensor, size: Size, grid: Size, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose among `count` candidates for each centre: numbers of points, ascending, -1 for none.

    candidates: those (n, count) for centres in columns (n,) of the grids of images (n,).
    """
    numbers, weights = [], []
    at_once = _DISTANCES_AT_ONCE if ids.device.type == "cpu" else _DISTANCES_AT_ONCE_ON_DEVICES
    for some in centre.split(max(1, at_once // count)):
        image = torch.div(some, grid[0] * grid[1], rounding_mode="floor")
        number = candidates(image, some % grid[1])
        place, weight = choose(*_offsets(ids, size, grid, some, number))
        numbers.append(number.gather(1, place).where(weight > 0, 0))
        weights.append(weight)
    return torch.cat(numbers), torch.cat(weights)


def _in_buckets(
    ids: Tensor, buckets: Buckets, grid: Size, reach: int, centre: Tensor, number: Tensor, weight: Tensor
) -> Tensor:
    """Write the rows `centre` (N,) of number and weight; return those for which other buckets may hold nearer ones."""
    found, border = buckets.around(centre, grid, reach)
    apart = _offsets(ids, buckets.size, grid, centre, found)
    complete = third_distance(apart[0].square() + apart[1].square())[:, 0] < border
    place, part = choose(apart[0][complete], apart[1][complete])
    number[centre[complete]] = found[complete].gather(1, place).where(part > 0, 0)
    weight[centre[complete]] = part
    return centre[~complete]


def _offsets(ids: Tensor, size: Size, grid: Size, centre: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (N, count) of points from centres (N,) along rows and columns, as `choose` takes; number -1: none."""
    image = torch.div(centre, grid[0] * grid[1], rounding_mode="floor")
    down = torch.div(centre, grid[1], rounding_mode="floor") - image * grid[0]
    pixel = ids[image[:, None], number.clamp(min=0)]
    row = torch.div(pixel, size[1], rounding_mode="floor")
    vertical = offsets(row, down[:, None], size[0], grid[0]).masked_fill_(number < 0, float("inf"))
    column = pixel - row * size[1]
    return vertical, offsets(column, (centre % grid[1])[:, None], size[1], grid[1]) * aspect_of(size, grid)


class _Disc(NamedTuple):
    """The pixels around centres in order of distance, T of them for each of P places of a centre within a pixel."""

    place: _Numbers  # (G*K,): the place of each cell's centre
    origin: _Numbers  # (G*K,): where the pixel that holds it is in the padded index
    step: _Numbers  # (P, T): from there to each pixel
    distance: _Numbers  # (P, T) squared, float64
    first: _Numbers  # (P, T): the first of those that are as near
    end: _Numbers  # (P, T): after the last of them
    complete: _Numbers  # (P, T): no pixel that is left out is as near
    margin: Size  # rows and columns of padding around the index

    @classmethod
    def around(cls, size: Size, grid: Size, area: float) -> _Disc:
        """Discs that are a part `area` of the image."""
        radius = sqrt(area / pi)
        margin = ceil(radius * size[0]), ceil(radius * size[1])
        units = (1.0, aspect_of(size, grid))
        centres, places, squares, open_squares = [], [], [], []
        for pixels, cells, reach, unit in zip(size, grid, margin, units, strict=True):
            cell = torch.arange(cells)
            centre = torch.div((2 * cell + 1) * pixels, 2 * cells, rounding_mode="floor")
            start = offsets(centre, cell, pixels, cells)
            start, place = start.unique(return_inverse=True)
            square = ((start[:, None] + 2 * cells * torch.arange(-reach - 1, reach + 2)) * unit).square()
            centres.append(centre)
            places.append(place)
            squares.append(square[:, 1:-1])
            open_squares.append(torch.minimum(square[:, 0], square[:, -1]))
        width = size[1] + 2 * margin[1]
        down, across = torch.arange(-margin[0], margin[0] + 1), torch.arange(-margin[1], margin[1] + 1)
        distance = (squares[0][:, None, :, None] + squares[1][:, None, :]).flatten(2).flatten(0, 1)
        distance, order = distance.sort(dim=1, stable=True)
        step = (down[:, None] * width + across).flatten()[order]
        complete = distance < torch.minimum(open_squares[0][:, None], open_squares[1]).view(-1, 1)
        count = min(distance.shape[1], max(NEAREST, ceil(area * size[0] * size[1])))
        first, end = torch.searchsorted(distance, distance), torch.searchsorted(distance, distance, right=True)
        complete &= end <= count
        place = (places[0][:, None] * len(squares[1]) + places[1]).flatten()
        origin = ((centres[0][:, None] + margin[0]) * width + centres[1] + margin[1]).flatten()
        near, squared, opens, closes, full = (
            t[:, :count].contiguous().numpy() for t in (step, distance, first, end.clamp(max=count), complete)
        )
        return cls(place.numpy(), origin.numpy(), near, squared, opens, closes, full, margin)


_kept_disc = lru_cache(maxsize=16)(_Disc.around)


def _disc(size: Size, grid: Size, area: float) -> _Disc:
    """`_Disc.around`, kept where it is small."""
    places = [cells // gcd(pixels, cells) for pixels, cells in zip(size, grid, strict=True)]
    small = places[0] * places[1] * area * size[0] * size[1] <= _KEPT_PIXELS
    return (_kept_disc if small else _Disc.around)(size, grid, area)


def _among_near(padded: _Numbers, disc: _Disc, centre: _Numbers, number: _Numbers, weight: _Numbers) -> _Numbers:
    """Write the rows `centre` (N,) of number and weight; return those whose disc holds too few points, or too many.

    padded (B, pixels): the lattice index with the disc's margin around it, without points there.
    """
    cells, (_, pixels) = len(disc.place), disc.step.shape
    image = centre // cells
    cell = centre - image * cells
    place = disc.place[cell]
    at = (image * padded.shape[1] + disc.origin[cell])[:, None] + (
        disc.step[place] if len(disc.step) > 1 else disc.step
    )
    found = padded.ravel().take(at.ravel())  # (N * T,)
    # From here on, points alone: those of one centre after those of another, nearest first.
    points = np.flatnonzero(found >= 0)
    if not len(points):
        return centre
    row = points // pixels
    column = points - row * pixels
    count = np.bincount(row, minlength=len(centre))
    start = count.cumsum() - count
    many = count >= NEAREST
    last = len(points) - 1
    third = np.where(many, column[np.minimum(start + NEAREST - 1, last)], pixels - 1)
    nearest = column[np.minimum(start, last)]
    on_centre = (disc.distance[place, 0] == 0) & (count > 0) & (nearest == 0)
    third[on_centre] = 0
    first, end = disc.first[place, third], disc.end[place, third]
    nearer = np.bincount(row[column < first[row]], minlength=len(centre))
    kept = np.bincount(row[column < end[row]], minlength=len(centre))
    enough = (many | on_centre) & disc.complete[place, third] & (kept <= COLUMNS)
    read = np.flatnonzero(column < np.where(enough, end, 0)[row])
    points, row, column = points[read], row[read], column[read]
    target = centre[row] * COLUMNS + read - start[row]
    distance = disc.distance[place[row], column]
    share = ((NEAREST - nearer[row]) / (kept[row] - nearer[row])).astype(np.float32)  # as `choice` divides
    value = np.where(column >= first[row], share, 1) * (1 / np.where(distance == 0, 1, distance))
    total = np.bincount(row, value, minlength=len(centre))
    weight.ravel()[target] = value / total[row]
    number.ravel()[target] = found[points]
    return centre[~enough]

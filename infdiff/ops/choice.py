"""The choice among points at known offsets from a cell's centre: which of them it reads, and their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size

NEAREST = 3
# At most two points lie nearer than the third, and at most eight are images of one another by reflection.
COLUMNS = 10


def offsets(pixel: Tensor, cell: Tensor, pixels: int, cells: int) -> Tensor:
    """Pixel centre minus cell centre along one axis, in units of 1 / (2 * pixels * cells): whole numbers in float64.

    Exact, so that points at the same distance compare equal whatever the sizes.
    """
    return ((2 * pixel + 1) * cells - (2 * cell + 1) * pixels).to(torch.float64)


def aspect_of(size: Size, grid: Size) -> float:
    """Factor from the column axis's unit to the row axis's: 1 for square images on square grids."""
    return (size[0] * grid[0]) / (size[1] * grid[1])


def choose(vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
    """Choose among points at offsets (..., N) from a centre; a missing one has infinity.

    Returns places (..., COLUMNS) int64, nearest first and of equally near ones the first, and weights float32, 0 in
    columns that are not used. Where more are equally near than fit, those count that are nearest to the centre's row or
    column: reflections keep them, and they are eight at most.
    """
    distance = vertical.square() + horizontal.square()
    third = third_distance(distance)
    tied = (distance == third) & distance.isfinite()
    kept = tied | (distance < third)
    aside = torch.minimum(vertical.abs(), horizontal.abs()).masked_fill(~tied, float("inf"))
    crowded = kept.sum(dim=-1, keepdim=True) > COLUMNS
    kept &= ~(crowded & tied & (aside > aside.amin(dim=-1, keepdim=True)))
    place, value = _smallest(distance.masked_fill(~kept, float("inf")), COLUMNS)
    return place, _weights(value, third)


def third_distance(distance: Tensor) -> Tensor:
    """The largest distance (..., 1) of a point that is read: the third smallest, or 0 if a point is on the centre."""
    places = min(NEAREST, distance.shape[-1])
    near = distance.topk(places, dim=-1, largest=False).values
    last = near[..., -1:] if places == NEAREST else torch.full_like(near[..., :1], float("inf"))
    return last.where(near[..., :1] > 0, 0)


def _smallest(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places and values of the `count` smallest of the last axis; of equal ones the first. Overwrites `distance`."""
    places, values = [], []
    for _ in range(count):
        value, place = distance.min(dim=-1, keepdim=True)
        places.append(place)
        values.append(value)
        distance.scatter_(-1, place, float("inf"))
    return torch.cat(places, dim=-1), torch.cat(values, dim=-1)


def _weights(distance: Tensor, third: Tensor) -> Tensor:
    """The weights of points at squared distances (..., COLUMNS), infinity for none, the last of them at `third`."""
    tied = (distance == third) & distance.isfinite()
    left = NEAREST - (distance < third).sum(dim=-1, keepdim=True)
    part = torch.where(tied, left / tied.sum(dim=-1, keepdim=True).clamp(min=1), 1)
    weight = part * torch.where(distance == 0, 1, distance.reciprocal())
    return (weight / weight.sum(dim=-1, keepdim=True)).float()

"""The points that each cell of a grid reads, and their weights: where points -> grid reads.

A cell that holds more than 3 points reads their mean. Any other reads the 3 points nearest to its centre, by inverse
squared distance on the unit square. Equally near ones weigh alike: the m points at the third distance share what the
nearer ones leave of the 3, so flipping an image flips its grid. A point exactly on the centre takes all.

The search is exact and has static shapes, so nothing waits for the host. The CUDA kernel searches growing windows of
the lattice index.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.arguments import check_ids, check_order, same_points
from infdiff.ops.cells import mean_share
from infdiff.ops.choice import COLUMNS, aspect_of, choose, offsets
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.lattice_index import lattice_index
from infdiff.ops.nearest_search import among_all, search
from infdiff.ops.registration import operator
from infdiff.ops.row_pairs import bisects


class Neighbours(NamedTuple):
    """The points that each of the G * K cells of a grid reads, and their weights. Depends on coordinates alone."""

    number: Tensor  # (B, G*K, COLUMNS) int32: point numbers, nearest first, 0 in columns that are not used
    weight: Tensor  # (B, G*K, COLUMNS) float32, summing to 1; all 0 where the cell reads its mean
    share: Tensor  # (B, G*K) float32: the weight of a point in the cell's mean; 0 where it reads the nearest ones
    reach: Tensor  # (B, L) int32: cells between a point's own cell and the farthest `number` has it in, along an axis
    ids: Tensor  # (B, L)
    # `lattice_index`; None: every pixel is a point, or few are and it is not needed. Hides `tuple.index`.
    index: Tensor | None  # type: ignore[assignment]
    size: Size
    grid: Size


def nearest_points_ref(ids: Tensor, size: Size, grid: Size, index: Tensor | None = None) -> Neighbours:
    """The specification of `nearest_points`: every distance, compared."""
    share = mean_share(ids, size, grid)
    found = among_all(ids, size, grid, torch.arange(share.numel(), device=ids.device))
    return _neighbours(ids, index, size, grid, share, *found)


def nearest_points(ids: Tensor, size: Size, grid: Size, index: Tensor | None = None) -> Neighbours:
    """Find what each centre of a grid (G, K) reads of the points `ids` (B, L) of an image of `size`.

    index: the result of `lattice_index`, if it is there. Rows of ids that share memory share the result's. Raises
    ValueError when the ids do not ascend, repeat or leave the image.
    """
    check_ids(ids, size)
    if ids.shape[1] == size[0] * size[1] or bisects(ids, size):
        index = None
    elif index is None:
        index = lattice_index(ids, size)
    distinct = same_points(ids)
    shared = None if index is None else index[: distinct.shape[0]]
    found: tuple[Tensor, ...] = _nearest_points(distinct, shared, *size, *grid)
    number, weight, share, reach = (t.expand(ids.shape[0], *t.shape[1:]) for t in found)
    return Neighbours(number, weight, share, reach, ids, index, size, grid)


@operator("nearest_points")
def _nearest_points(
    ids: Tensor, index: Tensor | None, height: int, width: int, grid_height: int, grid_width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size, grid = (height, width), (grid_height, grid_width)
    if index is None:  # else it was checked when the index was made
        check_order(ids, size)
    if launch.serves_points(ids):
        return kernels.nearest_points(ids, index, size, grid)
    share = mean_share(ids, size, grid)
    if ids.shape[1] == height * width:
        number, weight = (t.repeat(ids.shape[0], 1, 1) for t in nearest_pixels(size, grid, ids.device))
    else:
        number, weight = search(ids, index, size, grid, share)
    return _neighbours(ids, index, size, grid, share, number, weight)[:4]


@_nearest_points.register_fake
def _(
    ids: Tensor, index: Tensor | None, height: int, width: int, grid_height: int, grid_width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, cells = ids.shape[0], grid_height * grid_width
    return (
        ids.new_empty((batch, cells, COLUMNS), dtype=torch.int32),
        ids.new_empty((batch, cells, COLUMNS), dtype=torch.float32),
        ids.new_empty((batch, cells), dtype=torch.float32),
        ids.new_empty(ids.shape, dtype=torch.int32),
    )


def nearest_pixels(size: Size, grid: Size, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Numbers (1, G*K, COLUMNS) int64 and weights float32 of the nearest points where every pixel is a point.

    The nearest three, and those as near, lie within two pixels of the one that holds the cell's centre along either
    axis.
    """
    around = torch.arange(-2, 3, device=device)
    lines, apart = [], []
    for pixels, cells in zip(size, grid, strict=True):
        cell = torch.arange(cells, device=device)[:, None]
        line = (2 * cell + 1) * pixels // (2 * cells) + around
        lines.append(line)
        apart.append(offsets(line, cell, pixels, cells).masked_fill_((line < 0) | (line >= pixels), float("inf")))
    vertical, horizontal = torch.broadcast_tensors(
        apart[0][:, None, :, None], (apart[1] * aspect_of(size, grid))[:, None, :]
    )
    number = lines[0][:, None, :, None] * size[1] + lines[1][:, None, :]
    place, weight = choose(*(t.reshape(1, -1, len(around) ** 2) for t in (vertical, horizontal)))
    number = number.reshape(1, -1, len(around) ** 2).gather(2, place)
    return number.where(weight > 0, 0), weight


def _neighbours(
    ids: Tensor, index: Tensor | None, size: Size, grid: Size, share: Tensor, number: Tensor, weight: Tensor
) -> Neighbours:
    """Complete what was searched for: cells that read their mean read no nearest points."""
    searched = (share == 0).unsqueeze(2)
    number, weight = (t.view(*share.shape, COLUMNS) for t in (number, weight))
    number, weight = number.where(searched, 0).int(), weight.where(searched, 0)
    return Neighbours(number, weight, share, _reach(number, weight, ids, size, grid), ids, index, size, grid)


def _reach(number: Tensor, weight: Tensor, ids: Tensor, size: Size, grid: Size) -> Tensor:
    """`Neighbours.reach`, from the numbers (B, G*K, COLUMNS) and weights found."""
    if weight.device.type == "cpu":  # columns that are not used need not be gone through
        columns = next((column for column, used in enumerate(weight.unbind(-1)) if not used.any()), COLUMNS)
        number, weight = number[..., :columns], weight[..., :columns]
        if not columns:
            return torch.zeros_like(ids, dtype=torch.int32)
    row = torch.div(ids, size[1], rounding_mode="floor")
    own = torch.arange(grid[0] * grid[1], device=ids.device)
    own_row = torch.div(own, grid[1], rounding_mode="floor")
    down, across = (
        torch.div((2 * place + 1) * cells, 2 * pixels, rounding_mode="floor")
        for place, pixels, cells in zip((row, ids - row * size[1]), size, grid, strict=True)
    )
    flat = number.long().flatten(1)
    away = torch.maximum(
        (down.gather(1, flat).view_as(number) - own_row.unsqueeze(1)).abs(),
        (across.gather(1, flat).view_as(number) - (own - own_row * grid[1]).unsqueeze(1)).abs(),
    )
    reach = torch.zeros_like(ids)
    return reach.scatter_reduce_(1, flat, away.where(weight > 0, 0).flatten(1), "amax").int()

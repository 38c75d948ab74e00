"""The 3 points nearest to each centre of a grid, and their weights: where points -> grid reads.

Distances are taken on the unit square. The search is exact, breaks ties by the lower id and has static shapes, so
nothing waits for the host. Points are pixels, which narrows the search: in each row of pixels only the three points
nearest to a grid centre's column can be among the three nearest of all. The CUDA kernel searches growing windows of
the lattice index instead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.arguments import check_ids, check_order, same_points
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.registration import operator

NEAREST = 3
_CANDIDATES_AT_ONCE = 1 << 25
# Rows of pixels above and below a cell's centre that are searched first. At a density of 1/4 they hold the three
# nearest points of practically every cell.
_ROWS_AROUND = 4


class Neighbours(NamedTuple):
    """The nearest points of each of the G * K cells of a grid, and their weights. Depends on coordinates alone."""

    number: Tensor  # (B, G*K, 3) int32: point numbers, 0 with weight 0 where an image has fewer than 3 points
    weight: Tensor  # (B, G*K, 3) float32, summing to 1
    reach: Tensor  # (B, L) int32: cells between a point's own cell and the farthest one that uses it, along either axis
    ids: Tensor  # (B, L)
    size: Size
    grid: Size


def nearest_points_ref(ids: Tensor, size: Size, grid: Size, index: Tensor | None = None) -> Neighbours:
    """The specification of `nearest_points`: every distance, sorted."""
    distance = _squared_distance_table(ids, size, grid)
    order = distance.sort(dim=2, stable=True)
    missing = max(0, NEAREST - ids.shape[1])
    number = F.pad(order.indices[:, :, :NEAREST], (0, missing))
    weight = _weights(F.pad(order.values[:, :, :NEAREST], (0, missing), value=float("inf")))
    return Neighbours(number.int(), weight, _reach(number, weight, ids, size, grid), ids, size, grid)


def nearest_points(ids: Tensor, size: Size, grid: Size, index: Tensor | None = None) -> Neighbours:
    """The 3 nearest of the points `ids` (B, L) of an image of `size` to each centre of a grid (G, K).

    index: the result of `lattice_index`, if it is there. Rows of ids that share memory share the result's. Raises
    ValueError when the ids do not ascend, repeat or leave the image.
    """
    check_ids(ids, size)
    distinct = same_points(ids)
    shared = None if index is None else index[: distinct.shape[0]]
    found: tuple[Tensor, ...] = _nearest_points(distinct, shared, *size, *grid)
    number, weight, reach = (t.expand(ids.shape[0], *t.shape[1:]) for t in found)
    return Neighbours(number, weight, reach, ids, size, grid)


@operator("nearest_points")
def _nearest_points(
    ids: Tensor, index: Tensor | None, height: int, width: int, grid_height: int, grid_width: int
) -> tuple[Tensor, Tensor, Tensor]:
    size, grid = (height, width), (grid_height, grid_width)
    if index is None:  # else it was checked when the index was made
        check_order(ids, size)
    if launch.serves_points(ids):
        if index is None and ids.shape[1] < height * width:
            index = kernels.lattice_index(ids, size)
        return kernels.nearest_points(ids, index, size, grid)
    number, weight = _search(ids, size, grid)
    return number.int(), weight, _reach(number, weight, ids, size, grid)


@_nearest_points.register_fake
def _(
    ids: Tensor, index: Tensor | None, height: int, width: int, grid_height: int, grid_width: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (ids.shape[0], grid_height * grid_width, NEAREST)
    return (
        ids.new_empty(shape, dtype=torch.int32),
        ids.new_empty(shape, dtype=torch.float32),
        ids.new_empty(ids.shape, dtype=torch.int32),
    )


def nearest_pixels(size: Size, grid: Size, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """`nearest_points` where every pixel is a point: numbers (1, G*K, 3) int64 and weights float32.

    The nearest three lie within two pixels of the one that holds the cell's centre, along either axis.
    """
    around = torch.arange(-2, 3, device=device)
    lines, offsets = [], []
    for pixels, cells in zip(size, grid, strict=True):
        cell = torch.arange(cells, device=device)[:, None]
        line = (2 * cell + 1) * pixels // (2 * cells) + around
        lines.append(line)
        offsets.append(_offsets(line, cell, pixels, cells).masked_fill_((line < 0) | (line >= pixels), float("inf")))
    vertical, horizontal = offsets[0].square(), (offsets[1] * _aspect(size, grid)).square()
    distance = (vertical[:, None, :, None] + horizontal[:, None, :]).flatten(2).flatten(0, 1)[None]
    number = (lines[0][:, None, :, None] * size[1] + lines[1][:, None, :]).flatten(2).flatten(0, 1)[None]
    place, value = _smallest(distance)
    return number.gather(2, place).where(value.isfinite(), 0), _weights(value)


def own_cells(ids: Tensor, size: Size, grid: Size) -> tuple[Tensor, Tensor]:
    """The (row, column) of the grid cell that holds each point."""
    row, column = torch.div(ids, size[1], rounding_mode="floor"), ids % size[1]
    return tuple(
        torch.div(place * cells, pixels, rounding_mode="floor")
        for place, cells, pixels in zip((row, column), grid, size, strict=True)
    )  # type: ignore[return-value]


def _reach(number: Tensor, weight: Tensor, ids: Tensor, size: Size, grid: Size) -> Tensor:
    """`Neighbours.reach`, from the numbers (B, G*K, 3) and weights found."""
    flat = number.flatten(1).long()
    cell = torch.arange(grid[0] * grid[1], device=ids.device).repeat_interleave(NEAREST)
    row, column = own_cells(ids, size, grid)
    down = (row.gather(1, flat) - cell // grid[1]).abs()
    across = (column.gather(1, flat) - cell % grid[1]).abs()
    away = torch.maximum(down, across).where(weight.flatten(1) > 0, 0)
    return torch.zeros_like(ids).scatter_reduce_(1, flat, away, "amax").int()


def _search(ids: Tensor, size: Size, grid: Size) -> tuple[Tensor, Tensor]:
    """Numbers (B, G*K, 3) int64 and weights."""
    if ids.shape[1] == size[0] * size[1]:
        number, weight = nearest_pixels(size, grid, ids.device)
        return number.repeat(ids.shape[0], 1, 1), weight.repeat(ids.shape[0], 1, 1)
    row_number, row_distance = _nearest_in_rows(ids, size, grid)  # (B, H, K, 3)
    every_row = torch.arange(size[0], device=ids.device).expand(grid[0], -1)
    if ids.device.type != "cpu" or size[0] <= 2 * _ROWS_AROUND + 1:
        number, distance = _nearest_in(every_row, row_number, row_distance, size, grid)
        return number, _weights(distance)
    # Near rows first. Where a farther row could still hold a nearer point, or as near a one, all rows are searched.
    # This reads results on the host; on a device it would have to wait for them.
    centre = (2 * torch.arange(grid[0]) + 1) * size[0] // (2 * grid[0])
    rows = centre[:, None] + torch.arange(-_ROWS_AROUND, _ROWS_AROUND + 1)
    number, distance = _nearest_in(rows, row_number, row_distance, size, grid)
    beyond = torch.stack([rows[:, 0] - 1, rows[:, -1] + 1], dim=1)
    vertical = _offsets(beyond, torch.arange(grid[0])[:, None], size[0], grid[0]).square()
    vertical = vertical.masked_fill((beyond < 0) | (beyond >= size[0]), float("inf")).amin(dim=1)  # (G,)
    open_rows = (distance.view(-1, *grid, NEAREST)[..., -1] >= vertical[:, None]).any(dim=2).any(dim=0).nonzero()[:, 0]
    if len(open_rows):
        found = _nearest_in(every_row, row_number, row_distance, size, grid, open_rows)
        for near, complete in zip((number, distance), found, strict=True):
            near.view(-1, *grid, NEAREST)[:, open_rows] = complete.view(-1, len(open_rows), grid[1], NEAREST)
    return number, _weights(distance)


def _nearest_in(
    rows: Tensor,
    row_number: Tensor,
    row_distance: Tensor,
    size: Size,
    grid: Size,
    grid_rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Numbers and squared distances (B, g*K, 3) of the nearest points for rows of the grid, by default all G.

    rows (G, R): the rows of pixels to search for each row of the grid; indices outside the image are ignored.
    row_number, row_distance (B, H, K, 3): as `_nearest_in_rows` found them.
    """
    numbers, distances = [], []
    grid_rows = torch.arange(grid[0], device=rows.device) if grid_rows is None else grid_rows
    at_once = max(1, _CANDIDATES_AT_ONCE // (row_distance[:, 0].numel() * rows.shape[1]))
    for some in grid_rows.split(at_once):
        wanted = rows[some]  # (g, R)
        inside = (wanted >= 0) & (wanted < size[0])
        vertical = _offsets(wanted, some[:, None], size[0], grid[0]).square().masked_fill(~inside, float("inf"))
        wanted = wanted.clamp(0, size[0] - 1)
        candidate_distance = row_distance[:, wanted] + vertical[:, :, None, None]  # (B, g, R, K, 3)
        candidate_distance = candidate_distance.transpose(2, 3).flatten(3)  # (B, g, K, R*3), ascending numbers
        place, value = _smallest(candidate_distance)
        candidate_number = row_number[:, wanted].transpose(2, 3).flatten(3)
        numbers.append(candidate_number.gather(3, place).flatten(1, 2))
        distances.append(value.flatten(1, 2))
    distance = torch.cat(distances, dim=1)
    return torch.cat(numbers, dim=1).where(distance.isfinite(), 0), distance


def _nearest_in_rows(ids: Tensor, size: Size, grid: Size) -> tuple[Tensor, Tensor]:
    """Return the 3 nearest points of each row of pixels to the centre of each column of the grid.

    They are point numbers, ascending, and squared horizontal distances, each (B, H, K, 3); a missing point has
    distance infinity.
    """
    batch, count = ids.shape
    height, width = size
    device = ids.device
    cells = torch.arange(grid[1], device=device)
    # The last pixel of a row that lies left of the cell's centre, or on it.
    last_left = ((2 * cells + 1) * width - grid[1]) // (2 * grid[1])
    first = torch.arange(height, device=device)[:, None] * width
    # ids ascend, so the points of one row left of a centre end at a place found by bisection.
    bound = (first + last_left).flatten().expand(batch, -1).contiguous()
    place = torch.searchsorted(ids.contiguous(), bound, right=True) - 1
    steps = torch.arange(-NEAREST + 1, NEAREST + 1, device=device)
    number = place.unsqueeze(-1) + steps  # (B, H*K, 6), ascending
    present = (number >= 0) & (number < count)
    number = number.clamp(0, count - 1)
    column = ids.gather(1, number.flatten(1)).view_as(number) - first.expand(-1, grid[1]).reshape(1, -1, 1)
    present &= (column >= 0) & (column < width)
    offset = _offsets(column, cells.repeat(height)[:, None], width, grid[1]) * _aspect(size, grid)
    distance = offset.square().masked_fill_(~present, float("inf"))
    chosen, value = _smallest(distance)
    # Ascending order of id must survive the choice, so that later ties still go to the lower id.
    chosen, order = chosen.sort(dim=-1)
    shape = (batch, height, grid[1], NEAREST)
    return number.gather(2, chosen).view(shape), value.gather(2, order).view(shape)


def _offsets(pixel: Tensor, cell: Tensor, pixels: int, cells: int) -> Tensor:
    """Pixel centre minus cell centre along one axis, in units of 1 / (2 * pixels * cells): whole numbers in float64.

    Exact, so that points at the same distance compare equal whatever the sizes.
    """
    return ((2 * pixel + 1) * cells - (2 * cell + 1) * pixels).to(torch.float64)


def _aspect(size: Size, grid: Size) -> float:
    """Factor from the column axis's unit to the row axis's: 1 for square images on square grids."""
    return (size[0] * grid[0]) / (size[1] * grid[1])


def _smallest(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Places and values of the 3 smallest of the last axis; of equal ones the first. Overwrites `distance`."""
    places, values = [], []
    for _ in range(NEAREST):
        value, place = distance.min(dim=-1, keepdim=True)
        places.append(place)
        values.append(value)
        distance.scatter_(-1, place, float("inf"))
    return torch.cat(places, dim=-1), torch.cat(values, dim=-1)


def _weights(squared_distance: Tensor) -> Tensor:
    """Inverse squared distance, normalised; a point exactly on the centre takes all. Missing points have infinity."""
    exact = squared_distance == 0
    inverse = torch.where(exact.any(dim=-1, keepdim=True), exact.to(squared_distance), squared_distance.reciprocal())
    return (inverse / inverse.sum(dim=-1, keepdim=True)).float()


def _squared_distance_table(ids: Tensor, size: Size, grid: Size) -> Tensor:
    """(B, G*K, L) squared distances, float64, from every grid centre to every point."""
    row, column = (t.unsqueeze(1) for t in (ids // size[1], ids % size[1]))
    down, across = (torch.arange(n, device=ids.device)[:, None] for n in grid)
    vertical = _offsets(row, down, size[0], grid[0]).square()
    horizontal = (_offsets(column, across, size[1], grid[1]) * _aspect(size, grid)).square()
    return (horizontal[:, None] + vertical[:, :, None]).flatten(1, 2)

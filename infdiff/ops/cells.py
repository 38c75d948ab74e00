"""The pixels that a cell of a grid holds: those whose centres lie in it.

A centre exactly on the border of two cells belongs to both by half, so that flipping an image flips its grid.
All is arithmetic of whole numbers: pixel i of p ends half at (2 i + 1) n, cell c of n ends at 2 p (c + 1).
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from infdiff.coordinates import Size

# Where a cell holds more points than this, it reads their mean.
MANY = 3


def mean_share(ids: Tensor, size: Size, grid: Size) -> Tensor:
    """The weight of each point in the mean of its cell: (B, G*K) float32, 0 for cells that hold at most MANY points."""
    if ids.shape[1] == size[0] * size[1]:
        high, wide = (_counts(p, n, ids.device) for p, n in zip(size, grid, strict=True))
        count = (high[:, None] * wide).flatten().repeat(ids.shape[0], 1)
    else:
        cell = cells_of_points(ids, size, grid)
        count = torch.zeros(ids.shape[0], grid[0] * grid[1], device=ids.device, dtype=torch.float64)
        for side in cell.unbind(2):
            # Sums of quarters: exact in any order.
            count.scatter_add_(1, side, torch.full((), 1 / cell.shape[2], device=ids.device).double().expand_as(side))
    return torch.where(count > MANY, count.reciprocal(), 0).float()


def cells_of_points(ids: Tensor, size: Size, grid: Size) -> Tensor:
    """The cells that hold points (B, L): (B, L, S) int64, each by 1 / S.

    S is 1, or 2 or 4 where the centres of some pixels lie on borders. The other pixels' cells are repeated.
    """
    row = torch.div(ids, size[1], rounding_mode="floor")
    rows, columns = (
        [side[place] for side in _sides(p, n, ids.device)]
        for place, p, n in zip((row, ids - row * size[1]), size, grid, strict=True)
    )
    return torch.stack([r * grid[1] + c for r in rows for c in columns], dim=-1)


def pixels_of_cells(size: Size, grid: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pixels of each cell, (G*K, P) int64, and the part of each that is in it, 0 in places that are not used."""
    (rows, row_parts), (columns, column_parts) = (
        _lines(torch.arange(n, device=device), p, n) for p, n in zip(size, grid, strict=True)
    )
    pixel = rows[:, None, :, None] * size[1] + columns[:, None]
    part = row_parts[:, None, :, None] * column_parts[:, None]
    return pixel.flatten(2).flatten(0, 1), part.flatten(2).flatten(0, 1)


def sum_over_cells(image: Tensor, axis: int, pixels: int, cells: int, first: int = 0) -> tuple[Tensor, int]:
    """Sums over the pixels of each cell along one axis of an image, and the first of these cells.

    The image has a part of the axis's pixels, from `first` on. Cells before and after these are left out.
    """
    count = image.shape[axis]
    start = ((2 * first + 1) * cells - 1) // (2 * pixels) if first > 0 else 0
    end = (2 * (first + count) - 1) * cells // (2 * pixels) + 1 if first + count < pixels else cells
    shape = [1] * image.dim()
    shape[axis] = -1
    total: Tensor | None = None
    lines, parts = _lines(torch.arange(start, end, device=image.device), pixels, cells)
    for pixel, part in zip(lines.unbind(1), parts.unbind(1), strict=True):
        weight = (part * ((pixel >= first) & (pixel < first + count))).to(image.dtype).view(shape)
        term = image.index_select(axis, (pixel - first).clamp(0, count - 1)) * weight
        total = term if total is None else total.add_(term)
    assert total is not None
    return total, start


def _lines(cell: Tensor, pixels: int, cells: int) -> tuple[Tensor, Tensor]:
    """The pixels along an axis of cells (N,): (N, P) each, numbers and the part of each that belongs to the cell."""
    low = -torch.div(cells - 2 * pixels * cell, 2 * cells, rounding_mode="floor")
    pixel = low[:, None] + torch.arange(-(-pixels // cells), device=cell.device)
    end, start, stop = (2 * pixel + 1) * cells, (2 * pixels * cell)[:, None], (2 * pixels * (cell + 1))[:, None]
    part = ((end > start) & (end < stop)).double() + 0.5 * ((end == start) | (end == stop))
    return pixel.clamp(0, pixels - 1), part


def _sides(pixels: int, cells: int, device: torch.device) -> list[Tensor]:
    """The cell that holds each pixel of an axis, (pixels,); two, equal but for some, where centres lie on borders."""
    end = (2 * torch.arange(pixels, device=device) + 1) * cells
    sides = [end] if not _on_borders(pixels, cells) else [end - 1, end]
    return [torch.div(side, 2 * pixels, rounding_mode="floor") for side in sides]


def _on_borders(pixels: int, cells: int) -> bool:
    """True where the centre of some pixel of an axis lies on the border of two cells."""
    common = gcd(pixels, cells)
    return cells // common % 2 == 0 and pixels // common % 2 == 1


def _counts(pixels: int, cells: int, device: torch.device) -> Tensor:
    """The number of pixels that each cell of an axis holds, (cells,) float64."""
    return _lines(torch.arange(cells, device=device), pixels, cells)[1].sum(dim=1)

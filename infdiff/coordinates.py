"""The coordinate convention. Nothing else in the package converts coordinates.

Images are functions on the unit square. Pixel (i, j) of an H x W image sits at the centre of its cell,
((i + 1/2) / H, (j + 1/2) / W), written (row, column). A pixel's id is i * W + j.
"""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]
Scale = tuple[float, float]

# Larger images fit into no memory, and their pixels' numbers into no integer of libraries below.
LARGEST_SIDE = 1_000_000


def parse_size(text: int | str | Size) -> Size:
    """A size as (H, W) from 64, "64", "512x1024" (height first) or (512, 1024).

    Raises ValueError naming the text when it is not one or two positive whole numbers.
    """
    if isinstance(text, tuple):
        height, width = text
    else:
        parts = str(text).lower().split("x")
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise ValueError(f"{text!r} is not a size: write 256 or 512x1024 (height x width)")
        height, width = numbers[0], numbers[-1]
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise ValueError(f"{text!r} is not a size: height and width must be at least 1 and at most {LARGEST_SIDE}")
    return height, width


def format_size(size: Size) -> str:
    """ "64" for a square size, "512x1024" for another: what `parse_size` reads back."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def scale_of(size: Size, base: Size) -> Scale:
    """Pixels of `size` per pixel of `base`, for each axis: the r / R of the resolution law."""
    return size[0] / base[0], size[1] / base[1]


def within(size: Size, limit: Size) -> Size:
    """The largest size of the same shape that is nowhere larger than `limit`; `size` itself where that fits."""
    scale = min(1.0, limit[0] / size[0], limit[1] / size[1])
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def covering(size: Size, shape: Size) -> Size:
    """The smallest size in the proportions of `shape` that is nowhere smaller than `size`."""
    scale = max(size[0] / shape[0], size[1] / shape[1])
    return max(size[0], round(scale * shape[0])), max(size[1], round(scale * shape[1]))


def cell_centres(n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """(n,) centres of n equal cells of (0, 1)."""
    return (torch.arange(n, dtype=dtype, device=device) + 0.5) / n


def pixel_coordinates(ids: Tensor, size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixel ids (..., L) int64 -> coordinates (..., L, 2) in (0, 1)^2, (row, column)."""
    rows = torch.div(ids, size[1], rounding_mode="floor")
    columns = ids - rows * size[1]
    return torch.stack([(rows.to(dtype) + 0.5) / size[0], (columns.to(dtype) + 0.5) / size[1]], dim=-1)


def to_grid_sample(coordinates: Tensor) -> Tensor:
    """(row, column) in (0, 1)^2 -> (x, y) in (-1, 1)^2 as `grid_sample(align_corners=False)` wants it."""
    return 2 * coordinates.flip(-1) - 1


def to_cell_units(positions: Tensor, n: int) -> Tensor:
    """Positions in (0, 1) along one axis -> fractional cell numbers of an n-cell axis (cell k's centre is k)."""
    return positions * n - 0.5

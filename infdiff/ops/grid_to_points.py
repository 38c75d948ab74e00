"""Grid -> points: bilinear interpolation of a grid at pixel centres."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.grid import Size, pixel_coordinates, to_cell_units
from infdiff.ops.rows import weighted_rows


def grid_to_points_ref(grid: Tensor, ids: Tensor, size: Size) -> Tensor:
    """The specification of `grid_to_points`: four corners weighted by the areas opposite them, border repeated.

    grid (B, C, G, K), ids (B, L) of an image of `size` -> (B, L, C). Any device and floating dtype; differentiable
    in the grid.
    """
    height, width = grid.shape[2:]
    place = pixel_coordinates(ids, size, torch.float64)
    y = to_cell_units(place[..., 0], height).clamp(0, height - 1)
    x = to_cell_units(place[..., 1], width).clamp(0, width - 1)
    top, left = y.floor().long().clamp(max=max(height - 2, 0)), x.floor().long().clamp(max=max(width - 2, 0))
    below, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    fy, fx = y - top, x - left
    index = torch.stack([top * width + left, top * width + right, below * width + left, below * width + right], dim=-1)
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], dim=-1)
    return weighted_rows(grid.flatten(2).transpose(1, 2), index, weight)


def grid_to_points(grid: Tensor, ids: Tensor, size: Size) -> Tensor:
    """Bilinear values of a grid at points; arguments and result as `grid_to_points_ref`."""
    if ids.shape[1] == size[0] * size[1]:
        image = F.interpolate(grid, size, mode="bilinear", align_corners=False)
        return image.permute(0, 2, 3, 1).flatten(1, 2)
    return grid_to_points_ref(grid, ids, size)

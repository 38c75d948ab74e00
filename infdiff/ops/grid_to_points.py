"""Grid -> points: bilinear interpolation of a grid at pixel centres, its border repeated outwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size, pixel_coordinates, to_cell_units
from infdiff.ops.arguments import check_ids, check_same_device
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.lattice_index import lattice_index
from infdiff.ops.registration import autocast, operator
from infdiff.ops.rows import weighted_rows, weighted_rows_adjoint


def grid_to_points_ref(grid: Tensor, ids: Tensor, size: Size, index: Tensor | None = None) -> Tensor:
    """The specification of `grid_to_points`: four corners weighted by the areas opposite them.

    Differentiable by PyTorch's own rules.
    """
    return weighted_rows(grid.flatten(2).transpose(1, 2), *_corners(ids, size, (grid.shape[2], grid.shape[3])))


def grid_to_points(grid: Tensor, ids: Tensor, size: Size, index: Tensor | None = None) -> Tensor:
    """Bilinear values of a grid (B, C, G, K) at points `ids` (B, L) of an image of `size`: (B, L, C).

    index: the result of `lattice_index`, if it is there. In the grid's type (autocast's, where it is on), summed in
    float32 or wider. Differentiable in the grid; the gradient is the same bits in every run. Raises ValueError
    naming the argument that does not fit.
    """
    (grid,) = autocast(grid)
    check_ids(ids, size)
    if grid.dim() != 4 or grid.shape[0] != ids.shape[0]:
        raise ValueError(f"grid {tuple(grid.shape)} does not go with ids {tuple(ids.shape)}: want (B, C, G, K)")
    check_same_device(grid, ids=ids, index=index)
    rows = grid.permute(0, 2, 3, 1).flatten(1, 2)
    result: Tensor = _grid_to_points(rows, ids, index, [*size], [*grid.shape[2:]])
    return result


@operator("grid_to_points")
def _grid_to_points(
    rows: Tensor, ids: Tensor, index: Tensor | None, size: Sequence[int], grid: Sequence[int]
) -> Tensor:
    image_size, cells = (size[0], size[1]), (grid[0], grid[1])
    if launch.serves(rows):
        return kernels.grid_to_points(rows, ids, image_size, cells)
    if ids.shape[1] == image_size[0] * image_size[1]:
        image = rows.unflatten(1, cells).permute(0, 3, 1, 2)
        # A clone where interpolation changes nothing: an operator's result must be new.
        same = image_size == cells
        image = image.clone() if same else F.interpolate(image, image_size, mode="bilinear", align_corners=False)
        return image.permute(0, 2, 3, 1).flatten(1, 2)
    number, weight = _corners(ids, image_size, cells)
    return weighted_rows(rows, number, weight.to(torch.promote_types(rows.dtype, torch.float32)))


_grid_to_points.register_fake(lambda rows, ids, *_: rows.new_empty((*ids.shape, rows.shape[2])))


@operator("grid_to_points_adjoint")
def _grid_to_points_adjoint(
    grad: Tensor, ids: Tensor, index: Tensor | None, size: Sequence[int], grid: Sequence[int]
) -> Tensor:
    image_size, cells = (size[0], size[1]), (grid[0], grid[1])
    everywhere = ids.shape[1] == image_size[0] * image_size[1]
    if launch.serves(grad):
        index = None if everywhere else lattice_index(ids, image_size) if index is None else index
        return kernels.grid_to_points_transposed(grad, index, image_size, cells)
    if everywhere and grad.device.type == "cpu" and image_size != cells:  # on a device it would add in any order
        return _interpolation_adjoint(grad, image_size, cells)
    number, weight = _corners(ids, image_size, cells)
    weight = weight.to(torch.promote_types(grad.dtype, torch.float32))
    return weighted_rows_adjoint(grad, number, weight, cells[0] * cells[1])


@_grid_to_points_adjoint.register_fake
def _(grad: Tensor, *others: Any) -> Tensor:
    grid = others[-1]
    return grad.new_empty((grad.shape[0], grid[0] * grid[1], grad.shape[2]))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ids, index, ctx.size, ctx.grid = inputs
    ctx.save_for_backward(ids, index)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _grid_to_points_adjoint(grad, *ctx.saved_tensors, ctx.size, ctx.grid), None, None, None, None


_grid_to_points.register_autograd(_differentiate, setup_context=_remember)


def _interpolation_adjoint(grad: Tensor, size: Size, grid: Size) -> Tensor:
    """The adjoint of bilinear interpolation to every pixel: (B, H*W, C) -> (B, G*K, C)."""
    wide = grad.to(torch.promote_types(grad.dtype, torch.float32)).unflatten(1, size).permute(0, 3, 1, 2)
    shape = [*wide.shape[:2], *grid]
    cells = torch.ops.aten.upsample_bilinear2d_backward(wide, [*size], shape, False)
    return cells.permute(0, 2, 3, 1).flatten(1, 2).to(grad.dtype).contiguous()


def _corners(ids: Tensor, size: Size, grid: Size) -> tuple[Tensor, Tensor]:
    """The four cells around each point and their weights, (B, L, 4) each."""
    height, width = grid
    place = pixel_coordinates(ids, size, torch.float64)
    y = to_cell_units(place[..., 0], height).clamp(0, height - 1)
    x = to_cell_units(place[..., 1], width).clamp(0, width - 1)
    top, left = y.floor().long().clamp(max=max(height - 2, 0)), x.floor().long().clamp(max=max(width - 2, 0))
    below, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    fy, fx = y - top, x - left
    number = torch.stack([top * width + left, top * width + right, below * width + left, below * width + right], dim=-1)
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], dim=-1)
    return number, weight

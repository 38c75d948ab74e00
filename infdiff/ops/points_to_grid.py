"""Points -> grid: the mean of a cell's points where it holds many, elsewhere of those nearest to its centre."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.arguments import check_same_device, same_points
from infdiff.ops.cells import MANY, cells_of_points, pixels_of_cells
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.nearest_points import Neighbours
from infdiff.ops.registration import autocast, operator
from infdiff.ops.rows import weighted_rows, weighted_rows_adjoint


def points_to_grid_ref(features: Tensor, neighbours: Neighbours) -> Tensor:
    """The specification of `points_to_grid`, differentiable by PyTorch's own rules."""
    number, weight, share, _, ids, *_ = neighbours
    cell = cells_of_points(ids, neighbours.size, neighbours.grid)
    means = weighted_rows_adjoint(features, cell, _weights_in_means(cell, share), number.shape[1])
    return _as_image(weighted_rows(features, number, weight) + means, neighbours)


def points_to_grid(features: Tensor, neighbours: Neighbours) -> Tensor:
    """Features (B, L, C) at points -> (B, C, G, K) on the neighbours' grid, channels last in memory.

    In the features' type (autocast's, where it is on), summed in float32 or wider. Differentiable in the features; the
    gradient is the same bits in every run. Raises ValueError naming the argument that does not fit.
    """
    (features,) = autocast(features)
    shape, places = tuple(features.shape), tuple(neighbours.ids.shape)
    if features.dim() != 3 or shape[:2] != places:
        raise ValueError(f"features {shape} do not go with ids {places}: want (B, L, C)")
    check_same_device(features, neighbours=neighbours.number)
    return _as_image(_points_to_grid(features, *neighbours), neighbours)


def _as_image(rows: Tensor, neighbours: Neighbours) -> Tensor:
    return rows.unflatten(1, neighbours.grid).permute(0, 3, 1, 2)


# `Neighbours` as PyTorch's schemas can say it, field by field.
_NEIGHBOURS = (
    "Tensor number, Tensor weight, Tensor share, Tensor reach, Tensor ids, Tensor? index, SymInt[] size, SymInt[] grid"
)


@operator("points_to_grid", f"(Tensor features, {_NEIGHBOURS}) -> Tensor")
def _points_to_grid(features: Tensor, *neighbours: Any) -> Tensor:
    number, weight, share, _, ids, index, *sizes = neighbours
    size, grid = (sizes[0][0], sizes[0][1]), (sizes[1][0], sizes[1][1])
    if launch.serves(features):
        return kernels.points_to_grid(features, number, weight, share, index, size, grid)
    # A cell reads either its mean or the nearest points, so the two are added without rounding.
    means = _means(features, share, ids, size, grid)
    if means is None:
        return weighted_rows(features, number, weight)
    return means.add_(weighted_rows(features, number, weight)) if _some(weight) else means


@_points_to_grid.register_fake
def _(features: Tensor, *others: Any) -> Tensor:
    grid = others[-1]
    return features.new_empty((features.shape[0], grid[0] * grid[1], features.shape[2]))


@operator("points_to_grid_adjoint", f"(Tensor grad, {_NEIGHBOURS}) -> Tensor")
def _points_to_grid_adjoint(grad: Tensor, *neighbours: Any) -> Tensor:
    number, weight, share, reach, ids, _, *sizes = neighbours
    size, grid = (sizes[0][0], sizes[0][1]), (sizes[1][0], sizes[1][1])
    if launch.serves(grad):
        return kernels.points_to_grid_transposed(grad, number, weight, share, ids, reach, size, grid)
    # A point may be in a mean and near to other cells: added in the wider type, and rounded once.
    wide = grad.to(torch.promote_types(grad.dtype, weight.dtype))
    total = _means_adjoint(wide, share, ids, size, grid)
    if total is None or _some(weight):
        nearest = weighted_rows_adjoint(wide, number, weight, ids.shape[1])
        total = nearest if total is None else total.add_(nearest)
    return total.to(grad.dtype)


@_points_to_grid_adjoint.register_fake
def _(grad: Tensor, number: Tensor, weight: Tensor, share: Tensor, reach: Tensor, ids: Tensor, *rest: Any) -> Tensor:
    return grad.new_empty((*ids.shape, grad.shape[2]))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tensors, ctx.size, ctx.grid = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _points_to_grid_adjoint(grad, *ctx.saved_tensors, ctx.size, ctx.grid), *[None] * 8


_points_to_grid.register_autograd(_differentiate, setup_context=_remember)


def _means(features: Tensor, share: Tensor, ids: Tensor, size: Size, grid: Size) -> Tensor | None:
    """The means (B, G*K, C) of the cells that read theirs, zero elsewhere; None if there is none."""
    if not _some(share):
        return None
    if ids.shape[1] == size[0] * size[1]:
        cell = size[0] // grid[0], size[1] // grid[1]
        if size[0] % grid[0] == size[1] % grid[1] == 0 and prod(cell) > MANY:
            return _pooled(features, size, cell)
        number, part = pixels_of_cells(size, grid, ids.device)
        weight = (part * share[:1].unsqueeze(2)).float()
        return weighted_rows(features, *(t.expand(len(features), -1, -1) for t in (number[None], weight)))
    held_by = cells_of_points(ids, size, grid)
    return weighted_rows_adjoint(features, held_by, _weights_in_means(held_by, share), share.shape[1])


def _means_adjoint(grad: Tensor, share: Tensor, ids: Tensor, size: Size, grid: Size) -> Tensor | None:
    """The adjoint of `_means`: (B, G*K, C) -> (B, L, C)."""
    if not _some(share):
        return None
    distinct = same_points(ids)
    cell = cells_of_points(distinct, size, grid)
    weight = _weights_in_means(cell, share[: len(distinct)])
    return weighted_rows(grad, *(t.expand(len(grad), -1, -1) for t in (cell, weight)))


def _pooled(features: Tensor, size: Size, cell: Size) -> Tensor:
    wide = features.unflatten(1, size).permute(0, 3, 1, 2).to(torch.promote_types(features.dtype, torch.float32))
    pooled = F.avg_pool2d(wide, cell)
    return pooled.permute(0, 2, 3, 1).flatten(1, 2).to(features.dtype)


def _weights_in_means(cell: Tensor, share: Tensor) -> Tensor:
    """The weight of each point in the means of the cells (B, L, S) that hold it."""
    return share.gather(1, cell.flatten(1)).view_as(cell) / cell.shape[2]


def _some(weight: Tensor) -> bool:
    """False where all is zero. On a device always True: one would have to wait for the answer."""
    return weight.device.type != "cpu" or bool(weight.any())

"""Points -> grid: the mean of the 3 nearest points, weighted by inverse squared distance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from infdiff.ops.arguments import check_same_device
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.nearest_points import Neighbours
from infdiff.ops.registration import autocast, operator
from infdiff.ops.rows import weighted_rows, weighted_rows_adjoint


def points_to_grid_ref(features: Tensor, neighbours: Neighbours) -> Tensor:
    """The specification of `points_to_grid`, differentiable by PyTorch's own rules."""
    return _as_image(weighted_rows(features, neighbours.number, neighbours.weight), neighbours)


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
_NEIGHBOURS = "Tensor number, Tensor weight, Tensor reach, Tensor ids, SymInt[] size, SymInt[] grid"


@operator("points_to_grid", f"(Tensor features, {_NEIGHBOURS}) -> Tensor")
def _points_to_grid(features: Tensor, *neighbours: Any) -> Tensor:
    number, weight, *_, grid = neighbours
    if launch.serves(features):
        return kernels.points_to_grid(features, number, weight, grid[0] * grid[1])
    return weighted_rows(features, number, weight)


@_points_to_grid.register_fake
def _(features: Tensor, *others: Any) -> Tensor:
    grid = others[-1]
    return features.new_empty((features.shape[0], grid[0] * grid[1], features.shape[2]))


@operator("points_to_grid_adjoint", f"(Tensor grad, {_NEIGHBOURS}) -> Tensor")
def _points_to_grid_adjoint(grad: Tensor, *neighbours: Any) -> Tensor:
    number, weight, reach, ids, size, grid = neighbours
    if launch.serves(grad):
        sizes = (size[0], size[1]), (grid[0], grid[1])
        return kernels.points_to_grid_transposed(grad, number, weight, ids, reach, *sizes)
    return weighted_rows_adjoint(grad, number, weight, ids.shape[1])


@_points_to_grid_adjoint.register_fake
def _(grad: Tensor, number: Tensor, weight: Tensor, reach: Tensor, ids: Tensor, *sizes: Any) -> Tensor:
    return grad.new_empty((*ids.shape, grad.shape[2]))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, number, weight, reach, ids, ctx.size, ctx.grid = inputs
    ctx.save_for_backward(number, weight, reach, ids)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _points_to_grid_adjoint(grad, *ctx.saved_tensors, ctx.size, ctx.grid), None, None, None, None, None, None


_points_to_grid.register_autograd(_differentiate, setup_context=_remember)

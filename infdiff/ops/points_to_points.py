"""Points -> other points of the same image: the mean of the nearest ones by inverse squared distance.

The same neighbours and weights as points -> grid, read at pixels in place of the centres of cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.nearest_points import nearest_points
from infdiff.ops.rows import weighted_rows, weighted_rows_adjoint


class Sources(NamedTuple):
    """The points that each of M other points reads, and their weights. Depends on coordinates alone."""

    number: Tensor  # (B, M, K) int32: point numbers
    weight: Tensor  # (B, M, K) float32, summing to 1
    total: int  # of the points that are read


def sources_of(at: Tensor, ids: Tensor, size: Size, index: Tensor | None = None) -> Sources:
    """Return what points `at` (B, M) read among points `ids` (B, L) of an image of `size`.

    The 3 nearest, as `nearest_points` chooses them; a point that is itself among `ids` reads itself alone.
    index: the result of `lattice_index` for `ids`, if it is there.
    """
    near = nearest_points(ids, size, size, index)
    place = at.unsqueeze(2).expand(-1, -1, near.number.shape[2])
    return Sources(near.number.gather(1, place), near.weight.gather(1, place), ids.shape[1])


def points_to_points(features: Tensor, sources: Sources) -> Tensor:
    """Features (B, L, C) at the points read -> (B, M, C). The gradient is the same bits in every run."""
    result: Tensor = _Interpolation.apply(features, *sources)  # type: ignore[no-untyped-call] # as torch declares it
    return result


class _Interpolation(torch.autograd.Function):
    @staticmethod
    def forward(features: Tensor, number: Tensor, weight: Tensor, total: int) -> Tensor:
        return weighted_rows(features, number, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, number, weight, ctx.total = inputs
        ctx.save_for_backward(number, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        number, weight = ctx.saved_tensors
        return weighted_rows_adjoint(grads[0], number, weight, ctx.total), None, None, None

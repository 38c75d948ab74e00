"""All that depends on coordinates alone, computed once for a set of points and shared by every block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from infdiff import ops
from infdiff.grid import Size, pixel_coordinates, scale_of


@dataclass(frozen=True)
class Geometry:
    """A set of points as the network needs it: reuse one for all calls with the same points.

    scale is pixels per base pixel for (rows, columns); coordinates (B or 1, L, 2); inverse_count as the operator.
    """

    ids: Tensor
    size: Size
    scale: tuple[float, float]
    coordinates: Tensor
    inverse_count: Tensor
    neighbours: ops.Neighbours

    @classmethod
    def of(cls, ids: Tensor, size: Size, *, base: Size, kernel_size: int, grid: Size) -> Geometry:
        """For points `ids` (B, L) of an image of `size`, kernels at `base` resolution and an inner grid."""
        scale = scale_of(size, base)
        # Rows that share memory are one set of points: look at it once.
        distinct = ids[:1] if ids.stride(0) == 0 else ids
        count = ops.inverse_count(distinct, size, kernel_size, scale)
        near = ops.nearest_points(distinct, size, grid)
        batch = ids.shape[0]
        near = near._replace(number=near.number.expand(batch, -1, -1), weight=near.weight.expand(batch, -1, -1))
        return cls(ids, size, scale, pixel_coordinates(distinct, size), count, near)

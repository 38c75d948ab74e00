"""Everything that depends on coordinates alone, computed once for a set of points and shared by every block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from infdiff import ops
from infdiff.coordinates import Size, pixel_coordinates, scale_of


@dataclass(frozen=True)
class Geometry:
    """A set of points as a network needs it: reuse one for all calls with the same points.

    voxels: the points as TorchSparse stores them, where it is the backend.
    """

    points: ops.Points
    kernel_size: int
    coordinates: Tensor  # (B or 1, L, 2)
    neighbours: ops.Neighbours
    voxels: ops.Voxels | None = None

    @classmethod
    def of(
        cls, ids: Tensor, size: Size, *, base: Size, kernel_size: int, grid: Size, backend: str = "auto"
    ) -> Geometry:
        """Geometry of points `ids` (B, L) of an image of `size`, for kernels at `base` resolution and an inner grid."""
        points = ops.Points.of(ids, size, kernel_size, scale_of(size, base))
        near = ops.nearest_points(ids, size, grid, points.index)
        # TorchSparse knows kernels at the base resolution alone.
        voxels = ops.Voxels.of(ids, size) if backend == "torchsparse" and points.scale == (1.0, 1.0) else None
        # Rows sharing memory hold the same points, so one is enough.
        distinct = ids[:1] if ids.stride(0) == 0 else ids
        return cls(points, kernel_size, pixel_coordinates(distinct, size), near, voxels)

    @cached_property
    def depthwise_points(self) -> ops.Points:
        """The points for depthwise convolutions: with TorchSparse, its neighbour table is their index."""
        if self.voxels is None:
            return self.points
        return self.points._replace(index=ops.neighbour_table(self.voxels, self.kernel_size))

"""All that depends on coordinates alone, computed once for a set of points and shared by every block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from infdiff import ops
from infdiff.coordinates import Size, pixel_coordinates, scale_of
from infdiff.ops import torchsparse_backend


@dataclass(frozen=True)
class Geometry:
    """A set of points as the network needs it: reuse one for all calls with the same points.

    scale is pixels per base pixel for (rows, columns); coordinates (B or 1, L, 2). index and inverse_count as the
    operators return them; the index is None when every pixel is a point. voxels: the points as TorchSparse sees them,
    where it is the backend.
    """

    ids: Tensor
    size: Size
    scale: tuple[float, float]
    kernel_size: int
    coordinates: Tensor
    index: Tensor | None
    inverse_count: Tensor
    neighbours: ops.Neighbours
    voxels: torchsparse_backend.Points | None = None

    @classmethod
    def of(
        cls, ids: Tensor, size: Size, *, base: Size, kernel_size: int, grid: Size, backend: str = "auto"
    ) -> Geometry:
        """For points `ids` (B, L) of an image of `size`, kernels at `base` resolution and an inner grid."""
        scale = scale_of(size, base)
        everywhere = ids.shape[1] == size[0] * size[1]
        index = None if everywhere else ops.lattice_index(ids, size)
        count = ops.inverse_count(ids, size, kernel_size, scale, index)
        near = ops.nearest_points(ids, size, grid, index)
        # TorchSparse knows kernels at the base resolution alone.
        voxels = torchsparse_backend.Points.of(ids, size) if backend == "torchsparse" and scale == (1.0, 1.0) else None
        # Rows that share memory are one set of points: look at it once.
        distinct = ids[:1] if ids.stride(0) == 0 else ids
        return cls(ids, size, scale, kernel_size, pixel_coordinates(distinct, size), index, count, near, voxels)

    @cached_property
    def neighbour_index(self) -> Tensor | None:
        """Where depthwise convolutions look for neighbours: the lattice index, or TorchSparse's table."""
        if self.voxels is None:
            return self.index
        return torchsparse_backend.neighbour_table(self.voxels, self.kernel_size)

"""Everything that depends on coordinates alone, computed once for a set of points and shared by every block."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from infdiff import ops
from infdiff.coordinates import Scale, Size, pixel_coordinates, scale_of
from infdiff.points import subset_points


@dataclass(frozen=True)
class PointGeometry:
    """A set of points as sparse blocks need it.

    voxels: the points as TorchSparse stores them, where it is the backend.
    """

    points: ops.Points
    kernel_size: int
    voxels: ops.Voxels | None
    # For depthwise convolutions: with neighbour lists; with TorchSparse, its table is their index.
    depthwise_points: ops.Points

    @classmethod
    def at_scale(cls, ids: Tensor, size: Size, kernel_size: int, scale: Scale, backend: str = "auto") -> PointGeometry:
        """Points `ids` (B, L) of an image of `size`, for taps that are `scale` pixels apart."""
        points = ops.Points.of(ids, size, kernel_size, scale)
        # TorchSparse knows kernels at the base resolution alone.
        if backend != "torchsparse" or points.scale != (1.0, 1.0):
            return PointGeometry(points, kernel_size, None, points.listed(kernel_size))
        voxels = ops.Voxels.of(ids, size)
        table = points._replace(index=ops.neighbour_table(voxels, kernel_size))
        return PointGeometry(points, kernel_size, voxels, table)


@dataclass(frozen=True)
class Level:
    """Some of the points of the level above, for a network that is on points at every level.

    kept: (B, M), their numbers there. geometry: of these points. sources: what the points above read of them.
    """

    kept: Tensor
    geometry: PointGeometry
    sources: ops.Sources


@dataclass(frozen=True)
class Geometry(PointGeometry):
    """A set of points as a network needs it: reuse one for all calls with the same points.

    levels: those of a network without a grid, from the finest on; else empty.
    """

    coordinates: Tensor | None  # (B or 1, L, 2); None: no layer reads them
    neighbours: ops.Neighbours
    levels: tuple[Level, ...] = ()

    @classmethod
    def of(
        cls,
        ids: Tensor,
        size: Size,
        *,
        base: Size,
        kernel_size: int,
        grid: Size,
        backend: str = "auto",
        levels: int = 0,
        positions: bool = True,
    ) -> Geometry:
        """Geometry of points `ids` (B, L) of an image of `size`, for kernels at `base` resolution and an inner grid.

        levels: of a network on points alone, as `subsampled`. positions: points' coordinates are read.
        """
        own = PointGeometry.at_scale(ids, size, kernel_size, scale_of(size, base), backend)
        near = ops.nearest_points(ids, size, grid, own.points.index)
        below = subsampled(own, base=base, grid=grid, levels=levels, backend=backend)
        coordinates = pixel_coordinates(_distinct(ids), size) if positions else None
        return cls(own.points, kernel_size, own.voxels, own.depthwise_points, coordinates, near, below)


def subsampled(
    above: PointGeometry, *, base: Size, grid: Size, levels: int, backend: str = "auto"
) -> tuple[Level, ...]:
    """Return `levels` sets of points, each a random subset of the one before it, the first of those `above`.

    Level l has as many points as a grid of 1 / 2^l of the cells of `grid` would, for images of `base` size of which
    every pixel is a point; else in proportion, at least one. Its taps are as far apart as the cells of that grid.
    """
    size, points = above.points.size, above.points.ids.shape[1]
    below: list[Level] = []
    for level in range(levels):
        ids = above.points.ids
        distinct = _distinct(ids)
        kept = subset_points(distinct, max(1, round(points * prod(grid) / (prod(base) * 4**level))))
        rows, columns = (2**level * s for s in scale_of(size, grid))
        chosen = distinct.gather(1, kept).expand(len(ids), -1)
        geometry = PointGeometry.at_scale(chosen, size, above.kernel_size, (rows, columns), backend)
        sources = ops.sources_of(ids, chosen, size, geometry.points.index)
        below.append(Level(kept.expand(len(ids), -1), geometry, sources))
        above = geometry
    return tuple(below)


def _distinct(ids: Tensor) -> Tensor:
    """Rows sharing memory hold the same points, so one is enough."""
    return ids[:1] if ids.stride(0) == 0 else ids

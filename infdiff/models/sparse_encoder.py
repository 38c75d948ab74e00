"""The encoder of the diffusion autoencoder: the down half of the denoiser, from points to one latent."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from infdiff import ops
from infdiff.coordinates import Size
from infdiff.models.point_unet import PointDown, pooled_points
from infdiff.models.unet import LAYOUT_SIDE, Trunk
from infdiff.nn.embedding import PointLift
from infdiff.nn.geometry import Geometry
from infdiff.nn.norm import GridLayerNorm, ModulatedLayerNorm
from infdiff.nn.resample import cell_means
from infdiff.nn.sparse_block import SparseBlock
from infdiff.nn.standardize import Standardize
from infdiff.precision import without_autocast


class SparseEncoder(nn.Module):
    """Values of a clean image at any points -> latent z (B, z_dim). trunk: the down half of the grid network.

    sketch_side: the latent also reads the values directly, averaged to a coarse image of this side; 0: through the
    trunk alone. positions: points also carry their coordinates. global_pooling: the trunk's features are averaged over
    all of the image; else over a coarse grid. standardized: latents have mean 0 and variance 1 over images.
    """

    # Muon would turn the latent's axes faster than EMA weights can follow.
    outer_layers: ClassVar[tuple[str, ...]] = ("lift", "project", "sketch")
    float32_layers: ClassVar[tuple[str, ...]] = ("project", "sketch")  # as `_read_out` wants it

    def __init__(
        self,
        trunk: Trunk | PointDown,
        *,
        base: Size,
        grid: Size,
        z_dim: int,
        in_channels: int = 3,
        channels: int = 64,
        kernel_size: int = 7,
        blocks: int = 3,
        mlp_ratio: int = 2,
        depthwise: bool = True,
        nonlinear: bool = False,
        taps: str = "noise",
        backend: str = "auto",
        sketch_side: int = 0,
        positions: bool = True,
        global_pooling: bool = False,
        standardized: bool = True,
    ) -> None:
        super().__init__()
        self.base, self.grid, self.kernel_size, self.z_dim, self.backend = base, grid, kernel_size, z_dim, backend
        self.lift = PointLift(in_channels, channels, positions)
        self.down = nn.ModuleList(
            SparseBlock(
                channels,
                kernel_size,
                mlp_ratio=mlp_ratio,
                condition_dim=0,
                depthwise=depthwise,
                nonlinear=nonlinear,
                taps=taps,
                backend=backend,
            )
            for _ in range(blocks)
        )
        self.trunk = trunk
        norm = ModulatedLayerNorm if isinstance(trunk, PointDown) else GridLayerNorm
        self.norm = norm(trunk.out_channels)
        self.global_pooling = global_pooling
        self.project = nn.Linear(trunk.out_channels * (1 if global_pooling else LAYOUT_SIDE**2), z_dim)
        self.sketch_side = sketch_side
        self.sketch = nn.Linear(in_channels * sketch_side**2, z_dim) if sketch_side else None
        self.standardize = Standardize(z_dim) if standardized else None

    def geometry(self, ids: Tensor, size: Size) -> Geometry:
        """Precompute what depends on the points alone; pass it to every call with the same points."""
        return Geometry.of(
            ids,
            size,
            base=self.base,
            kernel_size=self.kernel_size,
            grid=self.grid,
            backend=self.backend,
            positions=self.lift.positions,
            levels=len(self.trunk.levels) if isinstance(self.trunk, PointDown) else 0,
        )

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        """x (B, L, in_channels) -> (B, z_dim)."""
        h = self.lift(x, geometry.coordinates)  # (B, L, C)
        for block in self.down:
            h = block(h, geometry, None)  # (B, L, C)
        pooled = self._pooled(h, geometry)  # (B, trunk.out_channels * cells)
        coarse = None
        if self.sketch is not None:
            coarse = F.adaptive_avg_pool2d(ops.points_to_grid(x, geometry.neighbours), self.sketch_side)
        with without_autocast(x.device):  # latents differ by less than bfloat16 resolves of them
            return self._read_out(pooled, coarse)

    def _pooled(self, h: Tensor, geometry: Geometry) -> Tensor:
        """The trunk's features, averaged over the image or the cells of a coarse grid: (B, out_channels * cells)."""
        if isinstance(self.trunk, PointDown):
            deepest, _ = self.trunk(h, geometry.levels, None)  # (B, M, trunk.out_channels)
            rows = self.norm.of(None, silu=True)(deepest)
            if self.global_pooling:
                return rows.mean(dim=1)
            return pooled_points(rows, geometry.levels[-1].geometry.points).flatten(1)
        grid = ops.points_to_grid(h, geometry.neighbours)  # (B, C, G, K)
        deepest, _ = self.trunk(grid, None)  # (B, trunk.out_channels, g, k)
        side = 1 if self.global_pooling else LAYOUT_SIDE
        return cell_means(self.norm.of(None, silu=True)(deepest), side).flatten(1)

    def _read_out(self, pooled: Tensor, coarse: Tensor | None) -> Tensor:
        """The latent (B, z_dim) from the deepest features and the coarse image."""
        weight = self.project.weight
        z = self.project(pooled.to(weight.dtype))
        if self.sketch is not None and coarse is not None:
            z = z + self.sketch(coarse.flatten(1).to(weight.dtype))
        return z if self.standardize is None else self.standardize(z)

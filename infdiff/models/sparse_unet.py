"""∞-Diff's denoiser (section 4.2, Fig. 4): sparse blocks on points around a U-Net on a grid."""

from __future__ import annotations

from torch import Tensor, nn

from infdiff import ops
from infdiff.coordinates import Size, scale_of
from infdiff.models.unet import GridNetwork
from infdiff.nn.embedding import Conditioning, PointLift
from infdiff.nn.geometry import Geometry
from infdiff.nn.norm import ModulatedLayerNorm
from infdiff.nn.sparse_block import SparseBlock, by_rows


class SparseUNet(nn.Module):
    """Values at points, diffusion time and latent -> values at the same points.

    grid_network: maps (B, channels, G, K) and a condition (B, condition_dim) to the same shape.
    base: the resolution (H, W) whose pixels space the taps; images of other sizes rescale the kernels. scale_grid: also
    scale the grid with the image, for grid networks that accept any size.
    """

    def __init__(
        self,
        grid_network: GridNetwork,
        *,
        base: Size,
        grid: Size,
        in_channels: int = 3,
        channels: int = 64,
        kernel_size: int = 7,
        blocks: int = 3,
        mlp_ratio: int = 2,
        z_dim: int = 0,
        condition_dim: int = 512,
        depthwise: bool = True,
        backend: str = "auto",
        scale_grid: bool = False,
    ) -> None:
        super().__init__()
        self.scale_grid = scale_grid
        self.base, self.grid, self.kernel_size, self.z_dim, self.backend = base, grid, kernel_size, z_dim, backend
        self.conditioning = Conditioning(dim=condition_dim, z_dim=z_dim)
        self.lift = PointLift(in_channels, channels)

        def block(skip: bool) -> SparseBlock:
            return SparseBlock(
                channels,
                kernel_size,
                mlp_ratio=mlp_ratio,
                condition_dim=condition_dim,
                skip=skip,
                depthwise=depthwise,
                backend=backend,
            )

        self.down = nn.ModuleList(block(skip=False) for _ in range(blocks))
        self.grid_network = grid_network
        self.up = nn.ModuleList(block(skip=True) for _ in range(blocks))
        self.norm = ModulatedLayerNorm(channels)
        self.project = nn.Linear(channels, in_channels)

    def grid_for(self, size: Size) -> Size:
        """The grid for images of a size: at least one cell along either axis."""
        if not self.scale_grid:
            return self.grid
        rows, columns = (round(cells * s) for cells, s in zip(self.grid, scale_of(size, self.base), strict=True))
        return max(1, rows), max(1, columns)

    def geometry(self, ids: Tensor, size: Size) -> Geometry:
        """Precompute what depends on the points alone; pass it to every call with the same points."""
        return Geometry.of(
            ids, size, base=self.base, kernel_size=self.kernel_size, grid=self.grid_for(size), backend=self.backend
        )

    def forward(self, x: Tensor, geometry: Geometry, t: Tensor, z: Tensor | None = None) -> Tensor:
        """x (B, L, in_channels), t (B,), z (B, z_dim) or None -> (B, L, in_channels)."""
        condition = self.conditioning(t, z)  # (B, condition_dim)
        points = geometry.points
        h = by_rows(self.lift, x, geometry.coordinates)  # (B, L, C)
        skips = []
        for block in self.down:
            h = block(h, geometry, condition)  # (B, L, C)
            skips.append(h)
        grid = ops.points_to_grid(h, geometry.neighbours)  # (B, C, G, K)
        grid = self.grid_network(grid, condition)  # (B, C, G, K)
        inner = ops.grid_to_points(grid, points.ids, points.size, points.index)  # (B, L, C)
        h = by_rows(lambda a, b: a + b, h, inner)
        for block in self.up:
            h = block(h, geometry, condition, skips.pop())  # (B, L, C)
        return by_rows(lambda h: self.project(self.norm(h)), h)  # (B, L, in_channels)

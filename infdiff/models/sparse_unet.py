"""∞-Diff's denoiser (section 4.2, Fig. 4): sparse blocks on points around a U-Net on a grid."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from infdiff import ops
from infdiff.coordinates import Size, scale_of
from infdiff.models.point_unet import PointUNet
from infdiff.models.unet import GridNetwork
from infdiff.nn.condition import Given, together, vector_of
from infdiff.nn.embedding import Conditioning, PointLift
from infdiff.nn.geometry import Geometry
from infdiff.nn.norm import ModulatedLayerNorm, modulated_norms
from infdiff.nn.sketch import Sketch
from infdiff.nn.sparse_block import SparseBlock, by_rows


class SparseUNet(nn.Module):
    """Values at points, diffusion time and latent -> values at the same points.

    grid_network: maps (B, channels, G, K) and a condition (B, condition_dim) to the same shape; or a network on points
    alone, whose levels are spaced as cells of the grid would be.
    base: the resolution (H, W) whose pixels space the taps; images of other sizes rescale the kernels. scale_grid: also
    scale the grid with the image, for grid networks that accept any size. taps: how those of the sparse convolutions
    start, as `initial_taps`. gated_input: the input, times a gate that the condition sets, is added to the output,
    which otherwise sees it through normalisations alone. sharp: a second output, of as many channels as the input.
    sketch_side: side of the coarse image that the latent is laid out on before the grid network; 0 for none. positions:
    points also carry their coordinates. separate_latent: the latent scales every block's features by itself, and the
    condition, of condition_dim + z_dim then, ends with it. label_dim: length of labels, as in `Conditioning`.
    condition_channels: of the input beyond in_channels, known at the points and not denoised; an input without them
    has zeros there.
    """

    # Between values and features: not for an optimiser of maps between features.
    outer_layers: ClassVar[tuple[str, ...]] = ("lift", "gate", "project", "grid_network.conv_out")

    def __init__(
        self,
        grid_network: GridNetwork | PointUNet,
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
        nonlinear: bool = False,
        taps: str = "noise",
        backend: str = "auto",
        scale_grid: bool = False,
        gated_input: bool = False,
        sharp: bool = False,
        sketch_side: int = 0,
        positions: bool = True,
        separate_latent: bool = False,
        label_dim: int = 0,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        self.scale_grid = scale_grid
        self.base, self.grid, self.kernel_size, self.z_dim, self.backend = base, grid, kernel_size, z_dim, backend
        self.conditioning = Conditioning(dim=condition_dim, z_dim=z_dim, separate=separate_latent, label_dim=label_dim)
        self.in_channels = in_channels
        self.lift = PointLift(in_channels + condition_channels, channels, positions)

        def block(skip: bool) -> SparseBlock:
            return SparseBlock(
                channels,
                kernel_size,
                mlp_ratio=mlp_ratio,
                condition_dim=condition_dim,
                latent_dim=z_dim if separate_latent else 0,
                skip=skip,
                depthwise=depthwise,
                nonlinear=nonlinear,
                taps=taps,
                backend=backend,
            )

        self.down = nn.ModuleList(block(skip=False) for _ in range(blocks))
        self.grid_network = grid_network
        self.sketch = Sketch(z_dim, channels, sketch_side) if sketch_side and z_dim else None
        self.up = nn.ModuleList(block(skip=True) for _ in range(blocks))
        self.norm = ModulatedLayerNorm(channels)
        self.out_channels = in_channels * (2 if sharp else 1)
        self.project = nn.Linear(channels, self.out_channels)
        self.gate = nn.Linear(self.conditioning.width, self.out_channels) if gated_input else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)
        self.modulated = modulated_norms(self)

    def grid_for(self, size: Size) -> Size:
        """The grid for images of a size: at least one cell along either axis."""
        if not self.scale_grid:
            return self.grid
        rows, columns = (round(cells * s) for cells, s in zip(self.grid, scale_of(size, self.base), strict=True))
        return max(1, rows), max(1, columns)

    def geometry(self, ids: Tensor, size: Size) -> Geometry:
        """Precompute what depends on the points alone; pass it to every call with the same points."""
        network = self.grid_network
        return Geometry.of(
            ids,
            size,
            base=self.base,
            kernel_size=self.kernel_size,
            grid=self.grid_for(size),
            backend=self.backend,
            positions=self.lift.positions,
            levels=len(network.levels) if isinstance(network, PointUNet) else 0,
        )

    def forward(
        self, x: Tensor, geometry: Geometry, t: Tensor, z: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """x (B, L, in_channels) or with condition channels, t (B,), z (B, z_dim) or None -> (B, L, out_channels).

        label: (B, label_dim); None, or zeros, for images without one.
        """
        condition = self.condition(t, z, label)
        places = () if geometry.coordinates is None else (geometry.coordinates,)
        h = by_rows(self.lift, x, *places)  # (B, L, C)
        skips = []
        for block in self.down:
            h = block(h, geometry, condition)  # (B, L, C)
            skips.append(h)
        h = by_rows(lambda a, b: a + b, h, self.inner(h, geometry, condition, z))
        for block in self.up:
            h = block(h, geometry, condition, skips.pop())  # (B, L, C)
        return by_rows(lambda h, x: self.read_out(h, x, condition), h, x)  # (B, L, out_channels)

    def condition(self, t: Tensor, z: Tensor | None, label: Tensor | None = None) -> Given:
        """Condition of all blocks for diffusion times t (B,), latents z (B, z_dim) and labels (B, label_dim)."""
        return together(self.modulated, self.conditioning(t, z, label))

    def inner(self, h: Tensor, geometry: Geometry, condition: Given, z: Tensor | None) -> Tensor:
        """The grid network's output for features (B, L, C), at the same points."""
        points = geometry.points
        if isinstance(self.grid_network, PointUNet):
            if self.sketch is not None and z is not None:
                sketch = self.sketch(z, self.grid).to(h.dtype)
                h = h + ops.grid_to_points(sketch, points.ids, points.size, points.index)
            return self.grid_network(h, geometry.levels, condition)
        grid = ops.points_to_grid(h, geometry.neighbours)  # (B, C, G, K)
        grid = self.on_grid(grid, condition, z)  # (B, C, G, K)
        return ops.grid_to_points(grid, points.ids, points.size, points.index)

    def on_grid(self, grid: Tensor, condition: Given, z: Tensor | None) -> Tensor:
        """The grid network's output (B, C, G, K), from features on the grid and what the latent says lies where."""
        assert not isinstance(self.grid_network, PointUNet)
        if self.sketch is not None and z is not None:
            grid = grid + self.sketch(z, (grid.shape[2], grid.shape[3])).to(grid.dtype)
        return self.grid_network(grid, condition)

    def read_out(self, h: Tensor, x: Tensor, condition: Given) -> Tensor:
        """The output (B, L, out_channels) from the last features and the input at the same points."""
        out = self.project(self.norm(h))
        if self.gate is None:
            return out
        gate = self.gate(vector_of(condition)).unsqueeze(1).to(out.dtype)  # (B, 1, out_channels)
        image = x[..., : self.in_channels]
        return torch.addcmul(out, image.repeat(1, 1, self.out_channels // self.in_channels).to(out.dtype), gate)

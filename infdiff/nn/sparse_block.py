"""The block on points: a sparse integral operator, then an MLP at each point (∞-Diff section 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff import ops
from infdiff.nn.condition import Given
from infdiff.nn.geometry import Geometry
from infdiff.nn.initial_taps import initial_taps
from infdiff.nn.norm import ModulatedLayerNorm, by_steps
from infdiff.nn.recompute import applied

# Rows of features that fit a processor's cache together with an MLP's hidden layer; and as many as keep a GPU busy, for
# which each launch counts.
_CACHED_ROWS, _BUSY_ROWS = 1 << 13, 1 << 19


class SparseConv(nn.Module):
    """Sparse depthwise (or regular) convolution with bias on features (B, L, C)."""

    bfloat16_parameters: ClassVar[tuple[str, ...]] = ("taps",)

    def __init__(
        self, channels: int, kernel_size: int, *, depthwise: bool = True, taps: str = "noise", backend: str = "auto"
    ) -> None:
        super().__init__()
        self.taps = nn.Parameter(initial_taps(taps, channels, 1 if depthwise else channels, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.depthwise, self.backend = depthwise, backend

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        if self.depthwise:
            return ops.sparse_depthwise_conv2d(x, self.taps, geometry.depthwise_points, self.backend, self.bias)
        out = ops.sparse_conv2d(x, self.taps, geometry.points, self.backend, geometry.voxels)
        return out + self.bias.to(out)

    def passing(self, x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """The convolution of x, and x for a residual connection around it."""
        if not self.depthwise or by_steps(x):
            return self(x, geometry), x
        points = geometry.depthwise_points
        return ops.sparse_depthwise_conv2d_passing(x, self.taps, points, self.backend, self.bias)


class SparseBlock(nn.Module):
    """Residual: convolution, modulated LayerNorm, MLP. Optionally first merges the features of a skip connection.

    nonlinear: the operator is convolution, activation, convolution: its kernel depends on the function (Eq. 13).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        mlp_ratio: int,
        condition_dim: int,
        latent_dim: int = 0,
        skip: bool = False,
        depthwise: bool = True,
        nonlinear: bool = False,
        taps: str = "noise",
        backend: str = "auto",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.merge = nn.Linear(2 * channels, channels) if skip else None
        convs = [
            SparseConv(channels, kernel_size, depthwise=depthwise, taps=taps, backend=backend)
            for _ in range(2 if nonlinear else 1)
        ]
        self.conv, self.conv_after = convs[0], convs[1] if nonlinear else None
        self.norm = ModulatedLayerNorm(channels, condition_dim, latent_dim)
        self.widen = nn.Linear(channels, mlp_ratio * channels)
        self.narrow = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, x: Tensor, geometry: Geometry, condition: Given | None, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = by_rows(self.merged, x, skip)
        convolved, x = self.conv.passing(x, geometry)
        if self.conv_after is not None:
            convolved = self.conv_after(F.silu(convolved), geometry)
        return self.mixed(x, convolved, condition)

    def merged(self, x: Tensor, skip: Tensor) -> Tensor:
        """The block's input, from features and those of a skip connection; for blocks that have one."""
        assert self.merge is not None
        return self.merge(torch.cat([x, skip], dim=-1))

    def mixed(self, x: Tensor, convolved: Tensor, condition: Given | None, out: Tensor | None = None) -> Tensor:
        """The block's output, from its input and the convolution of that."""
        return by_rows(lambda x, mixed: x + self._mlp(mixed, condition), x, convolved, out=out)

    def _mlp(self, x: Tensor, condition: Given | None) -> Tensor:
        h = applied(self.widen, self.norm.of(condition), x)
        if self.dropout and self.training:
            return self.narrow(F.dropout(F.silu(h), self.dropout))
        return applied(self.narrow, F.silu, h)


def by_rows(
    function: Callable[..., Tensor], *features: Tensor, out: Tensor | None = None, max_rows: int | None = None
) -> Tensor:
    """Apply a function of each point's features (B, L, C); on a CPU without gradients, to a slice of points at a time.

    The result is the same; memory for intermediate layers does not grow with L, and they stay in a processor's cache.
    max_rows: the rows of a slice, over all images; None: as many as the device is fastest with. out: where to write the
    result instead of to new memory.
    """
    batch, count = features[0].shape[:2]
    if max_rows is None:
        max_rows = _CACHED_ROWS if features[0].device.type == "cpu" else _BUSY_ROWS
    at_once = max(1, max_rows // batch)
    if torch.is_grad_enabled() or (count <= at_once and out is None):
        return function(*features)
    for start in range(0, count, at_once):
        piece = function(*(f[:, start : start + at_once] for f in features))
        if out is None:
            out = piece.new_empty(piece.shape[0], count, piece.shape[2])
        out[:, start : start + at_once] = piece
    assert out is not None
    return out

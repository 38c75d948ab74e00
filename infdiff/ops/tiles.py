"""Operators on a tile of an image: some of its rows, read together with the rows around them.

Every pixel is a point here. Concatenated, the tiles equal the result on the full image, with memory for one tile. For
inference: PyTorch's own operators, without rules of our own for gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.cells import mean_share, sum_over_cells
from infdiff.ops.dense_conv2d import dense_conv2d
from infdiff.ops.dense_kernels import dense_conv2d_kernels
from infdiff.ops.gpu import launch
from infdiff.ops.inverse_count import counts_by_axis
from infdiff.ops.nearest_points import nearest_pixels
from infdiff.ops.registration import autocast
from infdiff.ops.resize_kernel import kernel_reach
from infdiff.ops.rows import weighted_rows

# Channels convolved together: libraries take as long for fewer, and memory on the way is a multiple of them.
_CHANNELS_AT_ONCE = 16


def rows_around(kernel_size: int, scale: Scale) -> int:
    """Number of rows above, and as many below, that a row of `conv2d_tile` reads."""
    return kernel_reach(kernel_size, scale[0])


def conv2d_tile(
    window: Tensor,
    taps: Tensor,
    size: Size,
    scale: Scale,
    *,
    first: int,
    tile_rows: int,
    window_first: int,
    max_bytes: int = 1 << 26,
) -> Tensor:
    """Rows `first` to `first + tile_rows` of the sparse convolution of an image all of whose pixels are points.

    window (B, h, W, C): the image's rows from `window_first` on, which must reach `rows_around` past those wanted, or
    to the image's border. taps (C, 1, k, k), or (O, C, k, k). Returns (B, tile_rows, W, C or O), equal to those rows of
    `sparse_depthwise_conv2d` and `sparse_conv2d`. max_bytes: about the most of the window that is convolved at once;
    of a wider one, a few columns at a time. Raises ValueError when rows are missing.
    """
    window, taps = autocast(window, taps)
    context = first - window_first, window_first + window.shape[1] - first - tile_rows
    reach = rows_around(taps.shape[-1], scale)
    if context[0] < min(reach, first) or context[1] < min(reach, size[0] - first - tile_rows):
        given = f"{window_first} to {window_first + window.shape[1]}"
        raise ValueError(
            f"rows {first} to {first + tile_rows} read {reach} rows to either side: given are rows {given}"
        )
    unread = [max(0, c - reach) for c in context]
    window = window[:, unread[0] : window.shape[1] - unread[1]]
    context = context[0] - unread[0], context[1] - unread[1]
    high, wide = counts_by_axis(size, taps.shape[-1], scale, window.device)
    inverse = taps.shape[-1] ** 2 / (high[first : first + tile_rows, None, None] * wide[:, None])
    inverse = inverse.to(torch.promote_types(window.dtype, torch.float32))
    with torch.autocast(window.device.type, enabled=False):
        if taps.shape[1] > 1:
            return dense_conv2d(window, taps, scale, context=(context, (0, 0))).mul(inverse).to(window.dtype)
        if launch.serves(window):
            rows = context[0], context[0] + tile_rows
            return dense_conv2d_kernels(window, taps, scale, rows=rows, factors=inverse)
        out = window.new_empty(window.shape[0], tile_rows, *window.shape[2:])
        reach = kernel_reach(taps.shape[-1], scale[1])
        for left, right in _pieces(window, reach, max_bytes // inverse.element_size()):
            read = max(0, left - reach), min(window.shape[2], right + reach)
            around = context, (left - read[0], read[1] - right)
            for start in range(0, window.shape[3], _CHANNELS_AT_ONCE):
                some = slice(start, start + _CHANNELS_AT_ONCE)
                total = dense_conv2d(window[:, :, slice(*read), some], taps[some], scale, context=around)
                torch.mul(total, inverse[:, left:right], out=out[:, :, left:right, some])
        return out


def _pieces(window: Tensor, reach: int, max_values: int) -> list[tuple[int, int]]:
    """Columns (first, past the last) of the window that are convolved together, reading `reach` more on either side."""
    batch, rows, width, _ = window.shape
    most = max_values // (batch * rows * _CHANNELS_AT_ONCE)
    if most >= width:
        return [(0, width)]
    # At least `reach` columns each: narrower pieces would read most columns many times.
    count = -(-width // max(most - 2 * reach, reach, 1))
    step = -(-width // count)
    return [(left, min(left + step, width)) for left in range(0, width, step)]


class GridFromTiles:
    """`points_to_grid` of an image's features that come in tiles, in any order."""

    def __init__(self, size: Size, grid: Size, device: torch.device) -> None:
        self.size, self.grid = size, grid
        # On the host, where its zeros can be counted without waiting for the device.
        share = mean_share(torch.zeros((), dtype=torch.int64).expand(1, size[0] * size[1]), size, grid)
        self.share = share.to(device).view(1, *grid, 1)
        number, weight = nearest_pixels(size, grid)
        weight = weight.where((share == 0).unsqueeze(2), 0)
        columns = int((weight > 0).sum(dim=2).max())
        self.number, self.weight = number[:, :, :columns].to(device), weight[:, :, :columns].to(device)
        self.near: Tensor | None = None
        self.sums: Tensor | None = None

    def add(self, features: Tensor, first: int) -> None:
        """Add features (B, tile_rows * W, C) of the rows from `first` on."""
        place = self.number.flatten() - first * self.size[1]
        inside = ((place >= 0) & (place < features.shape[1])).view(1, -1, 1)
        read = features[:, place.clamp(0, features.shape[1] - 1)]
        self.near = read * inside if self.near is None else torch.where(inside, read, self.near)
        wide = features.unflatten(1, (-1, self.size[1])).to(torch.promote_types(features.dtype, torch.float32))
        across, _ = sum_over_cells(wide, 2, self.size[1], self.grid[1])
        sums, start = sum_over_cells(across, 1, self.size[0], self.grid[0], first)
        if self.sums is None:
            self.sums = sums.new_zeros(sums.shape[0], *self.grid, sums.shape[3])
        self.sums[:, start : start + sums.shape[1]] += sums

    def join(self, total: Callable[[Tensor], Tensor]) -> None:
        """Join it with the grids of other processes, which were given the image's other tiles. total: sums tensors."""
        assert self.near is not None
        assert self.sums is not None
        # A pixel that is not among the tiles was read as zeros.
        self.near, self.sums = total(self.near), total(self.sums)

    def read(self) -> Tensor:
        """(B, C, G, K), once all tiles have been added."""
        assert self.near is not None
        assert self.sums is not None
        batch, cells, columns = self.near.shape[0], *self.number.shape[1:]
        total = (self.sums * self.share).to(self.near.dtype)
        if columns:
            own = torch.arange(cells * columns, device=self.near.device).view(1, cells, columns)
            rows = weighted_rows(self.near, own.expand(batch, -1, -1), self.weight.expand(batch, -1, -1))
            total += rows.unflatten(1, self.grid)
        return total.permute(0, 3, 1, 2)

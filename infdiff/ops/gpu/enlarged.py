"""The host side of cuda/enlarged_conv.cu, as `kernels` of the others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.gpu import launch, layout

# As in cuda/enlarged_conv.cu: channels of a block, results that a thread makes together, rows that tents go along.
_CHANNELS, _RUN_Y, _RUN_X, _AT_ONCE = 8, 2, 4, 16
# Pixels of a tile: of more, some threads work twice as long; of fewer, more is read twice. The first to fit are taken.
_PIXELS = 512, 256
# Of more taps in a row, not all fit a thread's registers.
_MOST_TAPS = 13
# Blocks that fill any device, if the image has as many.
_BLOCKS = 1024


class Tile(NamedTuple):
    """Results that a block makes at once, and the shared memory that it takes, in bytes."""

    height: int
    width: int
    shared: int

    def defines(self, window: Size, step: Size) -> dict[str, int]:
        """The settings that the source is compiled for, but for those of features."""
        names = "WINDOW_HEIGHT WINDOW_WIDTH STEP_Y STEP_X TILE_HEIGHT TILE_WIDTH SHARED"
        return dict(zip(names.split(), (*window, *step, *self), strict=True))


def tile_of(channels: int, window: Size, step: Size, device: torch.device) -> Tile | None:
    """The tile of a kernel of (k, l) taps, `step` pixels apart; None where it has none that the device can hold."""
    if channels % _CHANNELS or max(window) > _MOST_TAPS:
        return None
    reach = window[0] // 2 * step[0], window[1] // 2 * step[1]
    run, group = _RUN_Y * step[0], _RUN_X * step[1]
    height = max(1, _AT_ONCE // run) * run
    ring = height + 2 * reach[0]
    if ring < _AT_ONCE:
        return None
    for pixels in _PIXELS:
        width = max(1, pixels // height // group) * group
        read = width + 2 * reach[1]
        gaps = (read - 1) // group * step[1] if step[1] < _RUN_X else 0
        wide = _AT_ONCE * (read + 2 * (step[1] - 1) | 1) if step[1] > 1 else 1
        shared = (window[0] * window[1] + wide + ring * (read + gaps | 1)) * _CHANNELS * 4
        if shared <= launch.shared_memory(device):
            return Tile(height, width, shared)
    return None


def pieces(tile: Tile, shape: tuple[int, int, int, int]) -> tuple[int, int]:
    """(Strips of an image, each of some channels and columns; rows of a block) for a result (B, H, W, C)."""
    batch, height, width, channels = shape
    strips = layout.vectors(channels) * layout.ceil(width, tile.width)
    tiles = layout.ceil(height, tile.height)
    return strips, layout.ceil(tiles, layout.ceil(_BLOCKS, strips * batch)) * tile.height


def enlarged_conv(
    image: Tensor,
    taps: Tensor,
    step: Size,
    rows: tuple[int, int] | None = None,
    *,
    factors: Tensor | None = None,
    bias: Tensor | None = None,
    adjoint: bool = False,
) -> Tensor:
    """Convolution of images (B, H, W, C) with taps (C, k, l), enlarged by tents to `step` pixels a tap, zero outside.

    rows: (first, past the last) of those to make, by default all. factors (rows * W) multiply the result, bias (C,) is
    added. adjoint: of that without bias, for all rows. Sums are in float32. Raises ValueError where `tile_of` is None.
    """
    image = layout.aligned(image)
    batch, in_height, width, channels = image.shape
    window = taps.shape[1], taps.shape[2]
    tile = tile_of(channels, window, step, image.device)
    if tile is None:
        raise ValueError(f"no tile of {tuple(taps.shape)} taps {step} pixels apart")
    top, end = rows or (0, in_height)
    out = torch.empty((batch, end - top, width, channels), dtype=image.dtype, device=image.device)
    strips, height = pieces(tile, (batch, end - top, width, channels))
    weights = taps.flatten(1).mT.float().contiguous()
    defines = layout.features_defines(image) | tile.defines(window, step)
    grid = (strips * layout.ceil(end - top, height), batch, 1)
    factors, bias = (None if f is None else f.float().contiguous() for f in (factors, bias))
    if adjoint:
        arguments: tuple[launch.Argument, ...] = image, weights, factors, out, in_height, width, height
    else:
        arguments = image, weights, factors, bias, out, in_height, end - top, width, top, height
    entry = "enlarged_conv_transposed" if adjoint else "enlarged_conv"
    launch.launch("enlarged_conv.cu", entry, defines, grid, arguments, tile.shared)
    return out

"""The work of kernels that convolve complete images: of training at all pixels, and of sampling at other resolutions.

The convolution of an enlarged kernel is one kernel, or three that leave their sums in memory: both are counted.
"""

from __future__ import annotations

from math import ceil, prod

import torch

from infdiff.benchmark.kernel_work import Turns, Work
from infdiff.coordinates import Size
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.gpu import enlarged, launch

_FLOAT32, _BFLOAT16 = 0, 2
_WARP = 32


def dense_works(channels: int, taps: int, batch: int, side: int) -> list[Work]:
    """Images of side x side pixels in a batch, and one of 2 and of 4 times the side, by taps x taps kernels."""
    base, twice, four_times = (batch, side, side, channels), (1, 2 * side, 2 * side, channels), (4 * side, 4 * side)
    high, wide = (n + 2 * 3 for n in four_times)  # tents of 4 pixels a tap reach 3 past the image
    window = window_of(taps, (2.0, 2.0))
    return [
        _dense("dense_conv", base, (taps, taps), _BFLOAT16, ""),
        _enlarged(base, taps, 1),
        _dense("dense_conv", twice, window, _BFLOAT16, "2 pixels a tap"),
        _enlarged(twice, taps, 2),
        _dense("dense_filter", (1, high, four_times[1], channels), (7, 1), _FLOAT32, "4 pixels a tap, down"),
        _dense("dense_filter", (1, high, wide, channels), (1, 7), _FLOAT32, "4 pixels a tap, across"),
        _dense("dense_conv", (1, *four_times, channels), (taps, taps), _FLOAT32, "4 pixels a tap"),
        _enlarged((1, *four_times, channels), taps, 4),
    ]


def _dense(entry: str, shape: tuple[int, int, int, int], window: Size, scalar: int, at: str) -> Work:
    """A kernel of dense_conv.cu that makes images of a shape (B, H, W, C)."""
    batch, height, width, channels = shape
    defines = {"SCALAR": scalar, "CHANNELS": channels, "WINDOW_HEIGHT": window[0], "WINDOW_WIDTH": window[1]}
    loops = {"for (int i = 0; i <": Turns(window[0]), "for (int at = 0; at <": Turns(window[1] + 3)}
    warps = channels / 8 * ceil(width / 4) * height * batch / _WARP
    return Work("dense_conv.cu", entry, defines, warps, batch * height * width, loops, at=at)


def _enlarged(shape: tuple[int, int, int, int], taps: int, step: int) -> Work:
    """The kernel of enlarged_conv.cu at `step` pixels a tap."""
    batch, height, width, channels = shape
    window, steps = (taps, taps), (step, step)
    tile = enlarged.tile_of(channels, window, steps, torch.device("cpu"))
    assert tile is not None
    strips, rows = enlarged.pieces(tile, shape)
    tiles, warps = rows // tile.height, launch.THREADS // _WARP
    reach = taps // 2 * step

    def turns(threads: int) -> float:
        """The turns of a loop over pieces of work, a thread each."""
        return ceil(threads / _WARP) / warps

    # 16 rows at once: those of a tile, and before the first one those around it.
    passes = ceil((tile.height + 2 * reach) / 16) + (tiles - 1) * ceil(tile.height / 16)
    loops = {
        "for (int n = threadIdx.x; n < WINDOW * VECTOR": Turns(turns(prod(window) * 8), "STS"),
        "for (int row = first; row <": Turns(tiles),
        "for (; begin < wanted": Turns(passes / tiles),
        "for (int place = threadIdx.x; place < WIDE": Turns(turns(2 * (tile.width + 2 * (reach + step - 1)))),
        "for (int task = threadIdx.x; task <": Turns(turns(tile.height * tile.width // 4)),
    }
    defines = {"SCALAR": _BFLOAT16, "CHANNELS": channels} | tile.defines(window, steps)
    blocks = strips * ceil(height / rows) * batch
    units, at = batch * height * width, "" if step == 1 else f"{step} pixels a tap"
    return Work("enlarged_conv.cu", "enlarged_conv", defines, blocks * warps, units, loops, at=at)

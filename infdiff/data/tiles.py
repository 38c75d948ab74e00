"""Images stored in tiles, each compressed by itself: some pixels are read without decoding the others.

An entry is a head of little-endian numbers, the tiles row by row, and a smooth copy of the image where one saves
work: what `SmoothCopy` reads for a mollifier about as wide as the published one, 1/256 of the shorter side, or wider.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.smooth_copy import SmoothCopy

TILE = 64
# Height, width, side of a tile, height and width of the copy (0 for none); then where each tile ends.
_HEAD = struct.Struct("<5I")
_END = np.dtype("<u8")
# The narrowest mollifier that the copy serves, as a part of the shorter side.
_NARROWEST = 1 / 280

Pixels = NDArray[np.uint8]


def encode_tiles(pixels: Pixels, tile: int) -> bytes:
    """Encode an image (H, W, 3), without loss, in tiles of `tile` pixels a side."""
    height, width = pixels.shape[:2]
    packed = [
        zlib.compress(_differences(pixels[top : top + tile, left : left + tile]).tobytes())
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    copy = _copy_lattice((height, width))
    head = _HEAD.pack(height, width, tile, *((0, 0) if copy.of_pixels else copy.cells))
    ends = np.cumsum([len(part) for part in packed], dtype=_END).tobytes()
    if not copy.of_pixels:
        packed.append(copy.make(torch.from_numpy(pixels).permute(2, 0, 1)).numpy().tobytes())
    return b"".join([head, ends, *packed])


class TiledImage:
    """An entry that `encode_tiles` wrote. data: its bytes, or a view; only what is asked for is read."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        height, width, self.tile, *cells = _HEAD.unpack_from(data)
        self.size: Size = (height, width)
        self.copy_cells: Size | None = (cells[0], cells[1]) if cells[0] else None
        self.down, self.across = -(-height // self.tile), -(-width // self.tile)
        self.ends = np.frombuffer(self.data, _END, self.down * self.across, _HEAD.size)
        self.start = _HEAD.size + self.ends.nbytes

    def read(self) -> Pixels:
        """All pixels (H, W, 3)."""
        return self._decoded(np.arange(self.down * self.across))

    def around(self, ids: Tensor, reach: int) -> Pixels:
        """(H, W, 3), of which only the pixels `ids` (L,), and those up to `reach` rows and columns away, are set."""
        height, width = self.size
        row, column = np.divmod(ids.numpy(), width)
        steps = sorted({*range(-reach, reach, self.tile), reach})
        needed = np.zeros((self.down, self.across), dtype=bool)
        for down in steps:
            for across in steps:
                y, x = np.clip(row + down, 0, height - 1), np.clip(column + across, 0, width - 1)
                needed[y // self.tile, x // self.tile] = True
        return self._decoded(np.flatnonzero(needed))

    def smooth_copy(self) -> Tensor | None:
        """The smooth copy (h, w, 3) float16, or None where the image has none."""
        if self.copy_cells is None:
            return None
        rows, columns = self.copy_cells
        values = np.frombuffer(self.data, np.float16, rows * columns * 3, self.start + int(self.ends[-1]))
        return torch.from_numpy(values.reshape(rows, columns, 3).copy())

    def _decoded(self, numbers: NDArray[np.int64]) -> Pixels:
        height, width = self.size
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        for number in numbers.tolist():
            top, left = (self.tile * n for n in divmod(number, self.across))
            begin = self.start + (int(self.ends[number - 1]) if number else 0)
            part = zlib.decompress(self.data[begin : self.start + int(self.ends[number])])
            shape = min(self.tile, height - top), min(self.tile, width - left), 3
            differences = np.frombuffer(part, np.uint8).reshape(shape)
            np.cumsum(differences, axis=1, dtype=np.uint8, out=pixels[top : top + shape[0], left : left + shape[1]])
        return pixels


def _differences(pixels: Pixels) -> Pixels:
    """Each pixel minus its left neighbour, modulo 256: of photographs, a third smaller when compressed."""
    return np.diff(pixels, axis=1, prepend=np.zeros_like(pixels[:, :1]))


def _copy_lattice(size: Size) -> SmoothCopy:
    return SmoothCopy.for_mollifier(Mollifier(min(size) * _NARROWEST, size), size)

"""A keyed pseudo-random permutation of an image's pixels, evaluated where it is wanted: O(L), never O(H*W).

A Feistel network on Z_H x Z_W. Each round adds a hash of one coordinate to the other, so every round is a bijection for
any H and W. Sides too short do not mix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.registration import operator

_HASH_BITS = 0xFFFFFFFF


def permuted_pixels_ref(keys: Tensor, count: int, size: Size) -> Tensor:
    """The specification of `permuted_pixels`: same arguments and result."""
    height, width = size
    start = torch.arange(count, device=keys.device).expand(keys.shape[1], -1)
    row, column = start // width, start % width
    for i in range(0, len(keys), 2):
        row = (row + hash32(column, keys[i])) % height
        column = (column + hash32(row, keys[i + 1])) % width
    return row * width + column


def permuted_pixels(keys: Tensor, count: int, size: Size) -> Tensor:
    """The first `count` pixels of each image's permutation: (B, count) int64.

    keys (R, B, 1) int64 in 0..2^32-1, of an even number of rounds. The same on every device.
    """
    result: Tensor = _permuted_pixels(keys, count, *size)
    return result


@operator("permuted_pixels")
def _permuted_pixels(keys: Tensor, count: int, height: int, width: int) -> Tensor:
    if launch.serves_points(keys):
        return kernels.permuted_pixels(keys, count, (height, width))
    return permuted_pixels_ref(keys, count, (height, width))


@_permuted_pixels.register_fake
def _(keys: Tensor, count: int, height: int, width: int) -> Tensor:
    return keys.new_empty((keys.shape[1], count))


def hash32(value: Tensor, key: Tensor) -> Tensor:
    """A 32-bit mix of value and key, kept in int64; multipliers below 2^31 so that no product overflows."""
    h = (value * 0x2C1B3C6D + key) & _HASH_BITS
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & _HASH_BITS
    h = ((h ^ (h >> 15)) * 0x297A2D39) & _HASH_BITS
    return h ^ (h >> 16)

"""A keyed pseudo-random permutation of an image's pixels, evaluated where it is wanted: O(L), never O(H*W).

A Feistel network on Z_H x Z_W. Each round adds a hash of one coordinate to the other, so every round is a bijection for
any H and W. Sides too short do not mix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.registration import operator

_HASH_BITS = 0xFFFFFFFF
# Below 2^31, so that no product with 32 bits overflows int64.
_MULTIPLIERS = (0x2C1B3C6D, 0x45D9F3B, 0x297A2D39)
_MULTIPLIERS_32 = tuple(np.uint32(multiplier) for multiplier in _MULTIPLIERS)
_PIXELS_A_POINT = 32  # from here up, on a CPU, sorting ids takes less time than marking them
_SHIFTS_32, _ONE_32 = (np.uint32(16), np.uint32(15)), np.uint32(1)


def permuted_pixels_ref(keys: Tensor, count: int, size: Size, ascending: bool = False) -> Tensor:
    """The specification of `permuted_pixels`: same arguments and result."""
    height, width = size
    start = torch.arange(count, device=keys.device).expand(keys.shape[1], -1)
    row, column = start // width, start % width
    for i in range(0, len(keys), 2):
        row = (row + hash32(column, keys[i])) % height
        column = (column + hash32(row, keys[i + 1])) % width
    ids = row * width + column
    return ids.sort(dim=1).values if ascending else ids


def permuted_pixels(keys: Tensor, count: int, size: Size, ascending: bool = False) -> Tensor:
    """The first `count` pixels of each image's permutation: (B, count) int64.

    keys (R, B, 1) int64 in 0..2^32-1, of an even number of rounds. ascending: these pixels in order. The same on every
    device.
    """
    result: Tensor = _permuted_pixels(keys, count, *size, ascending)
    return result


@operator("permuted_pixels")
def _permuted_pixels(keys: Tensor, count: int, height: int, width: int, ascending: bool) -> Tensor:
    size = height, width
    if launch.serves_points(keys):
        ids = kernels.permuted_pixels(keys, count, size)
        return ids.sort(dim=1).values if ascending else ids
    if keys.device.type != "cpu":
        return permuted_pixels_ref(keys, count, size, ascending)
    pixels = _in_32_bits(keys, count, size)
    return torch.from_numpy(_in_order(pixels, height * width) if ascending else pixels)


@_permuted_pixels.register_fake
def _(keys: Tensor, count: int, *others: Any) -> Tensor:
    return keys.new_empty((keys.shape[1], count))


def hash32(value: Tensor, key: Tensor) -> Tensor:
    """A 32-bit mix of value and key, kept in int64."""
    h = (value * _MULTIPLIERS[0] + key) & _HASH_BITS
    h = ((h ^ (h >> 16)) * _MULTIPLIERS[1]) & _HASH_BITS
    h = ((h ^ (h >> 15)) * _MULTIPLIERS[2]) & _HASH_BITS
    return h ^ (h >> 16)


_Numbers = np.ndarray[Any, Any]


def _in_32_bits(keys: Tensor, count: int, size: Size) -> _Numbers:
    """`permuted_pixels_ref` in NumPy's unsigned numbers, of which PyTorch has no products: the same in less time.

    They wrap around by themselves, and twice as many fit a processor's registers.
    """
    height, width = (np.uint32(side) for side in size)
    rounds = keys.numpy().astype(np.uint32)  # (R, B, 1)
    start = np.arange(count, dtype=np.uint32)
    row, column = (np.broadcast_to(part, (keys.shape[1], count)) for part in (start // width, start % width))
    for i in range(0, len(rounds), 2):
        row = _moved(row, _hash(column, rounds[i]), height)
        column = _moved(column, _hash(row, rounds[i + 1]), width)
    pixel = row.astype(np.int64)
    pixel *= size[1]
    pixel += column
    return pixel


def _in_order(ids: _Numbers, pixels: int) -> _Numbers:
    """The ids of each image in order: sorted, or where they are not few, marked in an image of all pixels."""
    if pixels >= _PIXELS_A_POINT * ids.shape[1]:
        return np.sort(ids, axis=1)
    start = np.arange(len(ids))[:, None] * pixels
    marked = np.zeros(len(ids) * pixels, dtype=bool)
    marked[ids + start] = True
    return np.flatnonzero(marked).reshape(ids.shape) - start


def _hash(value: _Numbers, key: _Numbers) -> _Numbers:
    """`hash32` in uint32."""
    h = value * _MULTIPLIERS_32[0]
    h += key
    shifted = h >> _SHIFTS_32[0]
    h ^= shifted
    h *= _MULTIPLIERS_32[1]
    h ^= np.right_shift(h, _SHIFTS_32[1], out=shifted)
    h *= _MULTIPLIERS_32[2]
    h ^= np.right_shift(h, _SHIFTS_32[0], out=shifted)
    return h


def _moved(place: _Numbers, by: _Numbers, side: np.uint32) -> _Numbers:
    """(place + by) % side, for places below the side; `by` is overwritten."""
    last = side - _ONE_32
    if not side & last:
        by += place  # what wraps around is a multiple of such a side
        by &= last
        return by
    by -= by // side * side
    by += place
    return np.minimum(by, by - side)  # by - side wraps around where it is below 0

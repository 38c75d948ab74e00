"""The convolution as it is defined: a window around every point, visited tap by tap.

Neighbours are found in the lattice index, or in a neighbour table.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from infdiff.coordinates import Size


def tap_by_tap(features: Tensor, kappa: Tensor, ids: Tensor, index: Tensor, size: Size) -> Tensor:
    """sum_n kappa(n) v(c + n) at every point c, offset after offset; kappa (C or 1, Kh, Kw).

    Returns (B, L, C) in float32 or wider.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    total, kappa = torch.zeros_like(features, dtype=dtype), kappa.to(dtype)
    for offset, present, value in window_rows(features, ids, index, size, (kappa.shape[1], kappa.shape[2])):
        total = total + value * present * kappa[:, *offset]
    return total


def tap_by_tap_gradient(features: Tensor, grad: Tensor, ids: Tensor, index: Tensor, size: Size, window: Size) -> Tensor:
    """(C, Kh, Kw): sum over batch and points c of grad(c) v(c + n)."""
    kappa = grad.new_empty(grad.shape[2], *window)
    for offset, present, value in window_rows(features, ids, index, size, window):
        kappa[:, *offset] = (value * present * grad).sum(dim=(0, 1))
    return kappa


def window_rows(
    features: Tensor, ids: Tensor, index: Tensor, size: Size, window: Size
) -> Iterator[tuple[Size, Tensor, Tensor]]:
    """Yield each offset of a window: its place, a mask (B, L, 1) of the points found there, their features (B, L, C).

    index (B, H, W) as `lattice_index`, or (B * L, Kh * Kw) as `torchsparse_backend.neighbour_table`. Where the mask is
    False the features are those of some other point.
    """
    if index.dim() == 2:
        yield from _table_rows(features, index, window)
        return
    row, column = torch.div(ids, size[1], rounding_mode="floor"), ids % size[1]
    for i in range(window[0]):
        for j in range(window[1]):
            y, x = row + i - window[0] // 2, column + j - window[1] // 2
            inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
            number = index.flatten(1).gather(1, (y * size[1] + x).where(inside, 0))
            present = inside & (number >= 0)
            where = number.where(present, 0).long().unsqueeze(-1).expand(-1, -1, features.shape[2])
            yield (i, j), present.unsqueeze(-1), features.gather(1, where)


def _table_rows(features: Tensor, table: Tensor, window: Size) -> Iterator[tuple[Size, Tensor, Tensor]]:
    """`window_rows` from a table of each point's neighbours as rows of the flattened features, -1 for none."""
    rows, shape = features.flatten(0, 1), features.shape[:2]
    for number, neighbours in enumerate(table.unbind(1)):
        present = neighbours >= 0
        value = rows[neighbours.clamp(min=0)]
        yield divmod(number, window[1]), present.view(*shape, 1), value.view_as(features)

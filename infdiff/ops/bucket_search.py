"""The points around centres of a grid, found in buckets: of few points in many pixels, on a CPU.

Points are sorted into the buckets of a coarse grid, a few to each; a centre reads the buckets around its own. Neither
an image of the pixels nor every distance is needed.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.choice import aspect_of

_POINTS_A_BUCKET = 2


class Buckets(NamedTuple):
    """Points (B, L) of images of `size`, sorted into `shape` buckets of an image each."""

    size: Size
    shape: Size
    order: Tensor  # (B * L,): the points' numbers in their image, bucket after bucket
    start: Tensor  # (B * buckets + 1,): where each bucket begins in `order`

    @classmethod
    def of(cls, ids: Tensor, size: Size) -> Buckets:
        """Buckets of about `_POINTS_A_BUCKET` points, as nearly square on the unit square as there are pixels for."""
        side = max(1, ceil(sqrt(ids.shape[1] / _POINTS_A_BUCKET)))
        shape = min(side, size[0]), min(side, size[1])
        row = torch.div(ids, size[1], rounding_mode="floor")
        image = torch.arange(len(ids))[:, None] * (shape[0] * shape[1])
        bucket = (image + row * shape[0] // size[0] * shape[1] + ids % size[1] * shape[1] // size[1]).flatten()
        order = bucket.sort(stable=True).indices % ids.shape[1]
        count = torch.bincount(bucket, minlength=len(ids) * shape[0] * shape[1])
        return cls(size, shape, order, torch.cat([count.new_zeros(1), count.cumsum(0)]))

    def around(self, centre: Tensor, grid: Size, reach: int) -> tuple[Tensor, Tensor]:
        """The points in the buckets up to `reach` from the one of each centre (N,) of the B * G*K: (N, M), -1 for none.

        Numbers ascend. Also the squared distance (N,), as `choice.offsets` counts, from which on points may be missing.
        """
        cells, (down, across) = grid[0] * grid[1], self.shape
        image = torch.div(centre, cells, rounding_mode="floor")
        cell = centre - image * cells
        places = torch.div(cell, grid[1], rounding_mode="floor"), cell % grid[1]
        (top, bottom, high), (left, right, wide) = (
            _span(*axis, reach) for axis in zip(places, grid, self.shape, self.size, strict=True)
        )
        parts = []
        for step in range(2 * reach + 1):
            row = top + step
            inside = (row >= 0) & (row < down) & (row <= bottom)
            first = (image * down + row.clamp(0, down - 1)) * across
            begin, end = self.start[first + left.clamp(min=0)], self.start[first + right.clamp(max=across - 1) + 1]
            most = int(((end - begin) * inside).max())
            place = begin[:, None] + torch.arange(most)
            found = self.order[place.clamp(max=len(self.order) - 1)]
            parts.append(found.where((place < end[:, None]) & inside[:, None], -1))
        border = torch.minimum(high, wide * aspect_of(self.size, grid))
        return torch.cat(parts, dim=1).sort(dim=1).values, border.square()


def _span(cell: Tensor, cells: int, buckets: int, pixels: int, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first and last bucket of windows around cells' centres, and the distance to the nearest pixel outside.

    The distance as `choice.offsets` counts: infinite where the window ends with the image.
    """
    own = torch.div((2 * cell + 1) * buckets, 2 * cells, rounding_mode="floor")
    first, last = own - reach, own + reach
    # Pixel i is in bucket i * buckets // pixels.
    before = torch.div(first * pixels + buckets - 1, buckets, rounding_mode="floor") - 1
    after = torch.div((last + 1) * pixels + buckets - 1, buckets, rounding_mode="floor")
    centre = (2 * cell + 1) * pixels
    low = (centre - (2 * before + 1) * cells).double().masked_fill(first <= 0, float("inf"))
    high = ((2 * after + 1) * cells - centre).double().masked_fill(last >= buckets - 1, float("inf"))
    return first, last, torch.minimum(low, high)

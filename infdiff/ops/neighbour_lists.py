"""Neighbour lists: the points in the window of each point, listed once for all convolutions of a set of points.

Only CUDA kernels read them. They find out by shapes alone whether lists would need too much memory; then, and where no
kernels run, lists are empty, and convolutions do without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.arguments import same_points
from infdiff.ops.gpu import launch, listed
from infdiff.ops.registration import operator


def neighbour_lists(ids: Tensor, index: Tensor, size: Size, window: Size) -> tuple[Tensor, Tensor]:
    """Lists by point and by offset, int32, in the layout of cuda/lists.cuh; both (0,) where they are not made.

    ids (B, L), index (B, H, W): of `lattice_index`. Rows of ids that share memory share one image's lists.
    """
    distinct = same_points(ids)
    by_point, by_offset = _neighbour_lists(distinct, index[: len(distinct)], *size, *window)
    return by_point, by_offset


@operator("neighbour_lists")
def _neighbour_lists(
    ids: Tensor, index: Tensor, height: int, width: int, window_height: int, window_width: int
) -> tuple[Tensor, Tensor]:
    window = window_height, window_width
    if _are_made(ids, window):
        return listed.neighbour_lists(ids, index, (height, width), window)
    return _empty(ids, window)


@_neighbour_lists.register_fake
def _(
    ids: Tensor, index: Tensor, height: int, width: int, window_height: int, window_width: int
) -> tuple[Tensor, Tensor]:
    return _empty(ids, (window_height, window_width))


def _empty(ids: Tensor, window: Size) -> tuple[Tensor, Tensor]:
    """Memory for lists."""
    by_point, by_offset = listed.shapes(ids.shape[0], ids.shape[1], window) if _are_made(ids, window) else ((0,), (0,))
    return ids.new_empty(by_point, dtype=torch.int32), ids.new_empty(by_offset, dtype=torch.int32)


def _are_made(ids: Tensor, window: Size) -> bool:
    return launch.serves_points(ids) and listed.can_list(ids.shape[0], ids.shape[1], window)

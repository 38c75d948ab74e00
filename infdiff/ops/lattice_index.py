"""The lattice index: an image of point numbers, in which the neighbours of a point are found without a search."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.arguments import check_ids, check_order, same_points
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.registration import operator


def lattice_index_ref(ids: Tensor, size: Size) -> Tensor:
    """The specification of `lattice_index`: same arguments and result."""
    batch, count = ids.shape
    index = torch.full((batch, size[0] * size[1]), -1, dtype=torch.int32, device=ids.device)
    numbers = torch.arange(count, dtype=torch.int32, device=ids.device).expand(batch, -1)
    return index.scatter_(1, ids, numbers).view(batch, *size)


def lattice_index(ids: Tensor, size: Size) -> Tensor:
    """ids (B, L) int64, ascending and without repeats -> (B, H, W) int32: a point's number in its row of ids, or -1.

    Rows of ids that share memory share the result's. Raises ValueError when the ids are not as they have to be.
    """
    check_ids(ids, size)
    index: Tensor = _lattice_index(same_points(ids), *size)
    return index.expand(ids.shape[0], -1, -1)


@operator("lattice_index")
def _lattice_index(ids: Tensor, height: int, width: int) -> Tensor:
    check_order(ids, (height, width))
    if launch.serves_points(ids):
        return kernels.lattice_index(ids, (height, width))
    return lattice_index_ref(ids, (height, width))


@_lattice_index.register_fake
def _(ids: Tensor, height: int, width: int) -> Tensor:
    return ids.new_empty((ids.shape[0], height, width), dtype=torch.int32)

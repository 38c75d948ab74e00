"""The normaliser of a sparse convolution: the number of taps over the sum of chi at the points present (Eq. 16)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.arguments import check_ids, check_order, same_points
from infdiff.ops.gpu import kernels, launch
from infdiff.ops.registration import operator
from infdiff.ops.resize_kernel import tent_matrix
from infdiff.ops.row_pairs import bisects, row_pairs


def inverse_count_ref(
    ids: Tensor,
    size: Size,
    kernel_size: int,
    scale: Scale,
    index: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The specification of `inverse_count`: the filtered mask of the points, read at the points."""
    rows, columns = _chi(kernel_size, scale, ids.device)
    mask = torch.zeros(ids.shape[0], size[0] * size[1], dtype=torch.float64, device=ids.device)
    image = mask.scatter_(1, ids, 1.0).view(-1, 1, *size)
    image = F.conv2d(image, rows.view(1, 1, -1, 1), padding="same")
    image = F.conv2d(image, columns.view(1, 1, 1, -1), padding="same")
    return (kernel_size**2 / image.flatten(1).gather(1, ids).unsqueeze(-1)).to(dtype)


def inverse_count(
    ids: Tensor,
    size: Size,
    kernel_size: int,
    scale: Scale,
    index: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """k^2 / sum chi at every point: (B, L, 1). Rows of ids that share memory share the result's.

    index: the result of `lattice_index`, if it is there. Depends on the coordinates alone, so one result serves every
    block with this kernel size. Raises ValueError when the ids do not ascend, repeat or leave the image.
    """
    check_ids(ids, size)
    distinct = same_points(ids)
    shared = None if index is None else index[: distinct.shape[0]]
    scales = (float(s) for s in scale)
    result: Tensor = _inverse_count(distinct, shared, *size, kernel_size, *scales, dtype == torch.float64)
    return result.to(dtype).expand(ids.shape[0], -1, -1)


@operator("inverse_count")
def _inverse_count(
    ids: Tensor,
    index: Tensor | None,
    height: int,
    width: int,
    kernel_size: int,
    scale_rows: float,
    scale_columns: float,
    wide: bool,
) -> Tensor:
    """The normaliser in float64, or without `wide` in float32."""
    found = _in_widest_type(ids, index, (height, width), kernel_size, (scale_rows, scale_columns), wide)
    return found if wide else found.float()


def _in_widest_type(
    ids: Tensor, index: Tensor | None, size: Size, kernel_size: int, scale: Scale, wide: bool
) -> Tensor:
    """The normaliser in float64, but from kernels, which round it by themselves."""
    if index is None:  # else it was checked when the index was made
        check_order(ids, size)
    if ids.shape[1] == size[0] * size[1]:
        return _of_all_pixels(size, kernel_size, scale, ids)
    rows, columns = _chi(kernel_size, scale, ids.device)
    if launch.serves_points(ids) and max(len(rows), len(columns)) <= kernels.MAX_WINDOW:
        index = kernels.lattice_index(ids, size) if index is None else index
        return kernels.inverse_count(ids, index, rows, columns, kernel_size**2, size, wide).unsqueeze(-1)
    if bisects(ids, size):
        return kernel_size**2 / _sums_over_pairs(ids, size, rows, columns).unsqueeze(-1)
    return inverse_count_ref(ids, size, kernel_size, scale, dtype=torch.float64)


@_inverse_count.register_fake
def _(ids: Tensor, *others: Any) -> Tensor:
    return ids.new_empty((*ids.shape, 1), dtype=torch.float64 if others[-1] else torch.float32)


def _of_all_pixels(size: Size, kernel_size: int, scale: Scale, ids: Tensor) -> Tensor:
    high, wide = counts_by_axis(size, kernel_size, scale, ids.device)
    return (kernel_size**2 / (high[:, None] * wide)).view(1, -1, 1).repeat(ids.shape[0], 1, 1)


def _sums_over_pairs(ids: Tensor, size: Size, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum of chi at every point (B, L), float64."""
    total = torch.zeros(ids.numel(), dtype=torch.float64)
    for row, of, _, column in row_pairs(ids, size, (len(rows), len(columns))):
        total.index_add_(0, of, rows[row] * columns[column])
    return total.view_as(ids)


def counts_by_axis(size: Size, kernel_size: int, scale: Scale, device: torch.device) -> list[Tensor]:
    """Two factors of sum chi where every pixel is a point: one number for each row (H,), one for each column (W,)."""
    counts = []
    for n, weights in zip(size, _chi(kernel_size, scale, device), strict=True):
        ones = torch.ones(1, 1, n, dtype=torch.float64, device=device)
        counts.append(F.conv1d(ones, weights.view(1, 1, -1), padding="same").view(-1))
    return counts


def _chi(kernel_size: int, scale: Scale, device: torch.device) -> list[Tensor]:
    """chi along rows and columns: the tents of all taps, added."""
    return [tent_matrix(kernel_size, s, device=device).sum(dim=1) for s in scale]

"""Checks of operators' arguments. Each raises ValueError naming the argument that does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.gpu import kernels, listed
from infdiff.ops.routing import BACKENDS

if TYPE_CHECKING:
    from infdiff.ops.point_set import Points


# Of `Points`.
_TENSORS = ("ids", "index", "inverse_count", "by_point", "by_offset")


def same_points(ids: Tensor) -> Tensor:
    """One row of ids where all rows share memory, so that results which depend on ids alone are computed once."""
    return ids[:1] if ids.stride(0) == 0 else ids


def check_ids(ids: Tensor, size: Size) -> None:
    """Require ids to be (B, L) int64 with 1 <= L <= H * W. Reads the shape, not the values."""
    if ids.dim() != 2 or ids.dtype != torch.int64:
        raise ValueError(f"ids {tuple(ids.shape)} {ids.dtype}: want (B, L) of torch.int64")
    if not 1 <= ids.shape[1] <= size[0] * size[1]:
        raise ValueError(f"ids hold {ids.shape[1]} points of an image of {size[0]}x{size[1]} pixels")


def check_order(ids: Tensor, size: Size) -> None:
    """Require ids to ascend in each row, without repeats, within the image.

    On a CUDA device the check runs there and is reported at the next synchronisation: nothing waits for it.
    """
    ids = same_points(ids)
    inside = (ids[:, 0] >= 0).all() & (ids[:, -1] < size[0] * size[1]).all()
    ascending = (ids[:, 1:] > ids[:, :-1]).all()
    range_message = f"ids out of range: pixels of a {size[0]}x{size[1]} image are 0 to {size[0] * size[1] - 1}"
    order_message = "ids must ascend in each row, without repeats"
    if ids.device.type == "cuda":
        torch._assert_async(ascending, order_message)
        torch._assert_async(inside, range_message)
    elif not ascending:
        raise ValueError(order_message)
    elif not inside:
        raise ValueError(range_message)


def check_same_device(features: Tensor, **others: Tensor | None) -> None:
    """Require the others to be where the features are."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != features.device:
            raise ValueError(f"{name} is on {tensor.device}, the features are on {features.device}")


def check_convolution(features: Tensor, taps: Tensor, points: Points, backend: str, *, depthwise: bool) -> None:
    """Require a convolution's arguments to go together. Reads shapes and types, not the values of tensors."""
    ids, channels = points.ids, features.shape[-1]
    check_ids(ids, points.size)
    if features.dim() != 3 or features.shape[:2] != ids.shape:
        raise ValueError(f"features {tuple(features.shape)} do not go with ids {tuple(ids.shape)}: want (B, L, C)")
    if not features.is_floating_point():
        raise ValueError(f"features are {features.dtype}: want a floating type")
    if taps.dim() != 4 or taps.shape[-1] != taps.shape[-2] or taps.shape[-1] % 2 == 0:
        raise ValueError(f"taps {tuple(taps.shape)}: want (C, 1, k, k) or (O, C, k, k) with k odd")
    if taps.shape[-1] > kernels.MAX_WINDOW:
        raise ValueError(f"taps {tuple(taps.shape)}: k is at most {kernels.MAX_WINDOW}")
    if taps.shape[:2] != (channels, 1) if depthwise else taps.shape[1] != channels:
        want = "(C, 1, k, k)" if depthwise else "(O, C, k, k)"
        raise ValueError(f"taps {tuple(taps.shape)} do not go with {channels} channels: want {want}")
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    check_same_device(features, taps=taps, **{name: getattr(points, name) for name in _TENSORS})
    _check_scale(points.scale)
    _check_stored(points, taps.shape[-1])


def _check_scale(scale: Scale) -> None:
    if len(scale) != 2 or min(scale) <= 0:
        raise ValueError(f"scale {tuple(scale)}: want two positive numbers, pixels per base pixel of rows and columns")


def _check_stored(points: Points, kernel_size: int) -> None:
    """Require what is stored to be of these points: kernels would read past the end of others."""
    ids, index, inverse_count = points.ids, points.index, points.inverse_count
    images, table = (ids.shape[0], *points.size), (ids.numel(), kernel_size**2)
    if index is not None and (index.dtype != torch.int32 or index.shape not in (images, table)):
        raise ValueError(f"index {tuple(index.shape)} {index.dtype}: want {images} or {table} of torch.int32")
    if index is not None and index.dim() == 2 and tuple(points.scale) != (1.0, 1.0):
        raise ValueError(f"index is a neighbour table, which knows no scale but (1, 1): scale is {tuple(points.scale)}")
    rows = [(n, ids.shape[1], 1) for n in (1, ids.shape[0])]
    if inverse_count.shape not in rows:
        raise ValueError(f"inverse_count {tuple(inverse_count.shape)}: want {rows[-1]}")
    window = window_of(kernel_size, points.scale)
    wanted = zip(*(listed.shapes(n, ids.shape[1], window) for n in (1, ids.shape[0])), strict=True)
    for name, shapes in zip(("by_point", "by_offset"), wanted, strict=True):
        lists = getattr(points, name)
        if lists is not None and (lists.dtype != torch.int32 or lists.shape not in ((0,), *shapes)):
            raise ValueError(f"{name} {tuple(lists.shape)} {lists.dtype}: want {shapes[-1]} of torch.int32")

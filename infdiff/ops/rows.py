"""Moving rows of features by number. The three primitives under every operator on points.

`gather_rows` and `scatter_rows` are each other's adjoint because a point's number appears once; saying so to
autograd turns the slow accumulating backward into a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gather_rows(features: Tensor, ids: Tensor) -> Tensor:
    """(B, N, C), ids (B, L) without repeats in a row -> (B, L, C). Differentiable in the features."""
    return _GatherRows.apply(features, ids)  # type: ignore[no-untyped-call]


def scatter_rows(features: Tensor, ids: Tensor, n: int) -> Tensor:
    """(B, L, C), ids (B, L) without repeats in a row -> (B, N, C), zero elsewhere. Differentiable in the features."""
    return _ScatterRows.apply(features, ids, n)  # type: ignore[no-untyped-call]


def weighted_rows(features: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows: out[b, m] = sum_k weight[b, m, k] * features[b, index[b, m, k]].

    features (B, N, C), index (B, M, K) int64, weight (B, M, K) float32 or float64 -> (B, M, C) in the features' dtype,
    summed in the wider of the two. Repeated indices are allowed. Differentiable in the features.
    """
    batch, n, channels = features.shape
    flat = features.reshape(batch * n, channels)
    rows = _flat_ids(index, n)
    out = None
    for k in range(index.shape[2]):
        term = flat.index_select(0, rows[:, :, k].reshape(-1)) * weight[:, :, k].reshape(-1, 1)
        out = term if out is None else out + term
    assert out is not None
    return out.view(batch, index.shape[1], channels).to(features.dtype)


def _flat_ids(ids: Tensor, n: int) -> Tensor:
    """Row numbers within each image (B, ...) -> row numbers within the batch laid end to end."""
    offset = torch.arange(ids.shape[0], device=ids.device) * n
    return ids + offset.view(-1, *[1] * (ids.dim() - 1))


def _take(features: Tensor, ids: Tensor) -> Tensor:
    batch, n, channels = features.shape
    rows = features.reshape(batch * n, channels).index_select(0, _flat_ids(ids, n).reshape(-1))
    return rows.view(batch, ids.shape[1], channels)


def _put(features: Tensor, ids: Tensor, n: int) -> Tensor:
    batch, count, channels = features.shape
    out = features.new_zeros(batch * n, channels)
    out.index_copy_(0, _flat_ids(ids, n).reshape(-1), features.reshape(batch * count, channels))
    return out.view(batch, n, channels)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.n = features.shape[1]
        return _take(features, ids)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        return _put(grad, ids, ctx.n), None


class _ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, ids: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(ids)
        return _put(features, ids, n)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        return _take(grad, ids), None, None

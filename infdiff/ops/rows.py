"""Rows of features moved by number: the parts of the operators on points in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size


def gather_rows(features: Tensor, ids: Tensor) -> Tensor:
    """(B, N, C), ids (B, L) without repeats in a row -> (B, L, C). Differentiable in the features."""
    batch, n, channels = features.shape
    rows = features.reshape(batch * n, channels).index_select(0, _flat_ids(ids, n).reshape(-1))
    return rows.view(batch, ids.shape[1], channels)


def scatter_rows(features: Tensor, ids: Tensor, n: int) -> Tensor:
    """(B, L, C), ids (B, L) without repeats in a row -> (B, n, C), zero elsewhere. Differentiable in the features."""
    batch, count, channels = features.shape
    rows = features.reshape(batch * count, channels)
    out = features.new_zeros(batch * n, channels).index_copy_(0, _flat_ids(ids, n).reshape(-1), rows)
    return out.view(batch, n, channels)


def rows_to_image(features: Tensor, ids: Tensor, size: Size) -> Tensor:
    """Features (B, L, C) at points ids (B, L) -> (B, H, W, C), zero where there is no point."""
    pixels = size[0] * size[1]
    return (features if ids.shape[1] == pixels else scatter_rows(features, ids, pixels)).unflatten(1, size)


def image_to_rows(image: Tensor, ids: Tensor) -> Tensor:
    """Values of images (B, H, W, C) at points ids (B, L): (B, L, C)."""
    rows = image.flatten(1, 2)
    return rows if ids.shape[1] == rows.shape[1] else gather_rows(rows, ids)


def weighted_rows(features: Tensor, number: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows: out[b, m] = sum_k weight[b, m, k] * features[b, number[b, m, k]].

    features (B, N, C), number (B, M, K) whole numbers, weight (B, M, K) -> (B, M, C) in the features' type, summed in
    the wider of the features' and the weights' type. Numbers may repeat. Differentiable in the features.
    """
    batch, n, channels = features.shape
    flat = features.reshape(batch * n, channels)
    rows = _flat_ids(number, n)
    dtype = torch.promote_types(features.dtype, weight.dtype)
    if _at_once(features, weight):
        weights = weight.reshape(-1, number.shape[2]).to(dtype)
        out = F.embedding_bag(rows.flatten(0, 1), flat.to(dtype), mode="sum", per_sample_weights=weights)
        return out.view(batch, number.shape[1], channels).to(features.dtype)
    total: Tensor | None = None
    for k in range(number.shape[2]):
        term = flat.index_select(0, rows[:, :, k].reshape(-1)) * weight[:, :, k].reshape(-1, 1)
        total = term if total is None else total + term
    assert total is not None
    return total.view(batch, number.shape[1], channels).to(features.dtype)


def weighted_rows_adjoint(grad: Tensor, number: Tensor, weight: Tensor, n: int) -> Tensor:
    """The adjoint of `weighted_rows` in the features: (B, M, C) -> (B, n, C). The same bits in every run."""
    batch, _, channels = grad.shape
    dtype = torch.promote_types(grad.dtype, weight.dtype)
    rows, flat = _flat_ids(number, n), grad.reshape(-1, channels)
    if _at_once(grad, weight):
        weights = weight.reshape(-1)
        used = weights.nonzero()[:, 0]
        target, order = rows.reshape(-1).index_select(0, used).int().sort(stable=True)
        used = used.index_select(0, order)
        count = torch.bincount(target, minlength=batch * n)
        first = count.cumsum(0) - count
        source, weights = torch.div(used, number.shape[2], rounding_mode="floor"), weights.index_select(0, used)
        out = F.embedding_bag(source, flat.to(dtype), first, mode="sum", per_sample_weights=weights.to(dtype))
        return out.view(batch, n, channels).to(grad.dtype)
    out = torch.zeros(batch * n, channels, dtype=dtype, device=grad.device)
    for k in range(number.shape[2]):
        term = (flat * weight[:, :, k].reshape(-1, 1)).to(dtype)
        # On a device it sorts first: adding in any order would differ from run to run.
        out.index_put_((rows[:, :, k].reshape(-1),), term, accumulate=True)
    return out.view(batch, n, channels).to(grad.dtype)


def _at_once(features: Tensor, weight: Tensor) -> bool:
    """True where PyTorch reads, weights and adds rows in one pass: on a CPU. Its own gradient of that is slow."""
    differentiated = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    return features.device.type == "cpu" and not differentiated


def _flat_ids(ids: Tensor, n: int) -> Tensor:
    """Row numbers within each image (B, ...) -> int64 row numbers within the batch laid end to end."""
    offset = torch.arange(ids.shape[0], device=ids.device) * n
    return ids + offset.view(-1, *[1] * (ids.dim() - 1))

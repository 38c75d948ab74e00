"""Sparse convolution with regular, not depthwise, taps (O, C, k, k): for ∞-Diff's ablation.

The same integral operator as in ops/sparse_depthwise_conv2d.py, with a matrix for each tap. Made of PyTorch's
own operators, or of TorchSparse's convolution where that backend is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops import torchsparse_backend
from infdiff.ops.dense_conv2d import Scale, dense_conv2d
from infdiff.ops.inverse_count import inverse_count
from infdiff.ops.lattice_index import lattice_index_ref
from infdiff.ops.registration import autocast, check_same_device
from infdiff.ops.resize_kernel import resize_kernel
from infdiff.ops.routing import choose_regular_route
from infdiff.ops.rows import gather_rows, scatter_rows
from infdiff.ops.sparse_depthwise_conv2d import check_arguments
from infdiff.ops.tap_by_tap import window_rows


def sparse_conv2d_ref(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    size: Size,
    scale: Scale = (1.0, 1.0),
    inverse: Tensor | None = None,
    backend: str = "auto",
    points: torchsparse_backend.Points | None = None,
) -> Tensor:
    """The specification of `sparse_conv2d`, tap by tap over the lattice index. Same arguments and result."""
    taps = taps.to(features.dtype)
    index = lattice_index_ref(ids, size)
    kappa, chi = resize_kernel(taps, scale), resize_kernel(torch.ones_like(taps[0, 0]), scale)
    total = features.new_zeros(*ids.shape, taps.shape[0])
    count = features.new_zeros(*ids.shape, 1)
    for (i, j), present, value in window_rows(features, ids, index, size, (kappa.shape[2], kappa.shape[3])):
        total = total + (value * present) @ kappa[:, :, i, j].mT
        count = count + present * chi[i, j]
    return taps.shape[-1] ** 2 * total / count


def sparse_conv2d(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    size: Size,
    scale: Scale = (1.0, 1.0),
    inverse: Tensor | None = None,
    backend: str = "auto",
    points: torchsparse_backend.Points | None = None,
) -> Tensor:
    """Sparse convolution of features (B, L, C) with taps (O, C, k, k): (B, L, O). Else as `sparse_depthwise_conv2d`.

    points: what TorchSparse found out about the points, when several calls share it.
    """
    features, taps = autocast(features, taps)
    check_arguments(features, taps, ids, size, scale, backend)
    if taps.shape[1] != features.shape[2]:
        raise ValueError(f"taps {tuple(taps.shape)} do not go with {features.shape[2]} channels: want (O, C, k, k)")
    check_same_device(features, taps=taps, ids=ids, inverse=inverse)
    if inverse is None:
        wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        inverse = inverse_count(ids, size, taps.shape[-1], scale, dtype=wide)
    pixels = size[0] * size[1]
    taps = taps.to(features.dtype)
    route = choose_regular_route(ids.shape[1], size, scale, backend).name
    if route == "torchsparse":
        points = points or torchsparse_backend.Points.of(ids, size)
        total = torchsparse_backend.conv2d(features, taps, points)
    elif route == "lattice":
        return sparse_conv2d_ref(features, taps, ids, size, scale)
    elif ids.shape[1] == pixels:
        total = dense_conv2d(features.unflatten(1, size), taps, scale).flatten(1, 2)
    else:
        image = scatter_rows(features, ids, pixels).unflatten(1, size)
        total = gather_rows(dense_conv2d(image, taps, scale).flatten(1, 2), ids)
    # In the normaliser's precision: bfloat16 would round the count.
    return (total * inverse).to(total.dtype)

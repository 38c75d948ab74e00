"""Sparse convolution with regular, not depthwise, taps (O, C, k, k): for ∞-Diff's ablation.

The same integral operator as in ops/sparse_depthwise_conv2d.py, with a matrix for each tap. Made of PyTorch's
own operators, or of TorchSparse's convolution where that backend is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.ops import torchsparse_backend
from infdiff.ops.arguments import check_convolution
from infdiff.ops.dense_conv2d import dense_conv2d
from infdiff.ops.lattice_index import lattice_index_ref
from infdiff.ops.point_set import Points
from infdiff.ops.registration import autocast
from infdiff.ops.resize_kernel import resize_kernel
from infdiff.ops.routing import choose_regular_route
from infdiff.ops.rows import image_to_rows, rows_to_image
from infdiff.ops.tap_by_tap import window_rows
from infdiff.ops.torchsparse_backend import Voxels


def sparse_conv2d_ref(
    features: Tensor, taps: Tensor, points: Points, backend: str = "auto", voxels: Voxels | None = None
) -> Tensor:
    """The specification of `sparse_conv2d`, tap by tap over the lattice index; reads ids, size and scale alone."""
    ids, size, scale = points[:3]
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
    features: Tensor, taps: Tensor, points: Points, backend: str = "auto", voxels: Voxels | None = None
) -> Tensor:
    """Sparse convolution of features (B, L, C) with taps (O, C, k, k): (B, L, O). Else as `sparse_depthwise_conv2d`.

    voxels: the points as TorchSparse stores them, so that calls with that backend share its kernel maps.
    """
    features, taps = autocast(features, taps)
    check_convolution(features, taps, points, backend, depthwise=False)
    ids, size, scale = points[:3]
    taps = taps.to(features.dtype)
    route = choose_regular_route(ids.shape[1], size, scale, backend).name
    if route == "lattice":
        return sparse_conv2d_ref(features, taps, points)
    if route == "torchsparse":
        total = torchsparse_backend.conv2d(features, taps, voxels or Voxels.of(ids, size))
    else:
        total = image_to_rows(dense_conv2d(rows_to_image(features, ids, size), taps, scale), ids)
    # In the normaliser's precision: bfloat16 would round the count.
    return (total * points.inverse_count).to(total.dtype)

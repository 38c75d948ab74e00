"""The routes of the sparse depthwise convolution: one class each, with the sum and its gradient to the taps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from infdiff.ops.dense_conv2d import dense_conv2d, dense_taps_gradient, window_of
from infdiff.ops.dense_kernels import dense_conv2d_kernels
from infdiff.ops.gpu import kernels, listed
from infdiff.ops.lattice_index import lattice_index
from infdiff.ops.neighbour_lists import neighbour_lists
from infdiff.ops.point_set import Points
from infdiff.ops.resize_kernel import resize_kernel, resize_kernel_adjoint
from infdiff.ops.row_pairs import bisects, pair_by_pair, pair_by_pair_gradient
from infdiff.ops.rows import image_to_rows, rows_to_image
from infdiff.ops.tap_by_tap import tap_by_tap, tap_by_tap_gradient
from infdiff.ops.taps_gradient import sums_over_pairs, taps_by_pairs

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Wanted(NamedTuple):
    """The gradients that are asked for. passed: added to that of the features, and of their type."""

    features: bool
    taps: bool
    bias: bool = False
    passed: Tensor | None = None


class ConvolutionRoute(Protocol):
    """One implementation of the operator. Features and gradients are (B, L, C), taps (C, 1, k, k)."""

    def convolve(self, features: Tensor, taps: Tensor, points: Points, bias: Tensor | None) -> Tensor:
        """inverse_count * sum kappa v + bias (C,)."""

    def gradients(self, grad: Tensor, features: Tensor, taps: Tensor, points: Points, wanted: Wanted) -> Gradients:
        """Gradients to features, taps and bias, the last two of float32 or wider; None for one not asked for."""


class Kernels:
    """CUDA kernels that go through neighbour lists, or find neighbours in the lattice index or a neighbour table."""

    def convolve(self, features: Tensor, taps: Tensor, points: Points, bias: Tensor | None) -> Tensor:
        kappa = resize_kernel(taps[:, 0].float(), points.scale)
        if lists := _lists(points, kappa):
            return listed.listed_conv(features, kappa, lists[0], points.inverse_count, bias)
        ids, size, index = points.ids, points.size, _index(points)
        return kernels.sparse_conv(features, kappa, ids, index, points.inverse_count, size, bias=bias)

    def gradients(self, grad: Tensor, features: Tensor, taps: Tensor, points: Points, wanted: Wanted) -> Gradients:
        kappa = resize_kernel(taps[:, 0].float(), points.scale)
        for_features = for_taps = None
        if lists := _lists(points, kappa):
            window = kappa.shape[1], kappa.shape[2]
            scaled, for_bias = listed.scaled_rows(grad.to(features.dtype), points.inverse_count, summed=wanted.bias)
            if wanted.features:
                for_features = listed.listed_conv(scaled, kappa.flip(1, 2), lists[0], added=wanted.passed)
            if wanted.taps:
                for_taps = _to_taps(listed.listed_taps(features, scaled, lists[1], window), points, taps.shape[-1])
            return for_features, for_taps, for_bias
        if wanted.features:
            ids, size, index, count = points.ids, points.size, _index(points), points.inverse_count
            for_features = kernels.sparse_conv(grad, kappa, ids, index, count, size, transposed=True)
        for_taps = _searched_taps(features, grad, points, taps.shape[-1]) if wanted.taps else None
        return _with_passed(for_features, wanted), for_taps, _to_bias(grad) if wanted.bias else None


def _with_passed(for_features: Tensor | None, wanted: Wanted) -> Tensor | None:
    return for_features if for_features is None or wanted.passed is None else for_features.add_(wanted.passed)


def _to_bias(grad: Tensor) -> Tensor:
    """The gradient to the bias (C,), rounded to the type of grad (B, L, C)."""
    return grad.sum(dim=(0, 1))


def _lists(points: Points, kappa: Tensor) -> tuple[Tensor, Tensor] | None:
    """Neighbour lists of the points, by point and by offset; None where they are not made."""
    by_point, by_offset = points.by_point, points.by_offset
    if points.index is not None and points.index.dim() == 2:
        return None
    if by_point is None or by_offset is None:
        window = kappa.shape[1], kappa.shape[2]
        by_point, by_offset = neighbour_lists(points.ids, _index(points), points.size, window)
    return (by_point, by_offset) if by_point.numel() else None


def _index(points: Points) -> Tensor:
    return lattice_index(points.ids, points.size) if points.index is None else points.index


def _searched_taps(features: Tensor, grad: Tensor, points: Points, kernel_size: int) -> Tensor:
    """The adjoint in the taps by kernels that look up each neighbour."""
    ids, size, scale, index, count = points[:5]
    if ids.shape[1] == size[0] * size[1]:
        index = None
    elif index is None:
        index = lattice_index(ids, size)
    kappa = kernels.sparse_conv_taps(features, grad, ids, index, count, size, window_of(kernel_size, scale))
    return _to_taps(kappa, points, kernel_size)


class _Separate:
    """Routes whose gradients share nothing: the adjoint is the operator with the kernel rotated, normalised first."""

    def convolve(self, features: Tensor, taps: Tensor, points: Points, bias: Tensor | None) -> Tensor:
        out = self._sum(features, taps, points, adjoint=False)
        return out if bias is None else out.add_(bias.to(out.dtype))

    def gradients(self, grad: Tensor, features: Tensor, taps: Tensor, points: Points, wanted: Wanted) -> Gradients:
        return (
            _with_passed(self._sum(grad, taps, points, adjoint=True) if wanted.features else None, wanted),
            self._taps_gradient(features, grad, points, taps.shape[-1]) if wanted.taps else None,
            _to_bias(grad) if wanted.bias else None,
        )

    def _sum(self, features: Tensor, taps: Tensor, points: Points, *, adjoint: bool) -> Tensor:
        raise NotImplementedError

    def _taps_gradient(self, features: Tensor, grad: Tensor, points: Points, kernel_size: int) -> Tensor:
        raise NotImplementedError


class Lattice(_Separate):
    """PyTorch, tap by tap through the lattice index or a neighbour table; of few points, pair by pair without them."""

    def _sum(self, features: Tensor, taps: Tensor, points: Points, *, adjoint: bool) -> Tensor:
        def total(features: Tensor, taps: Tensor) -> Tensor:
            kappa = resize_kernel(taps[:, 0], points.scale)
            if self._in_pairs(points):
                return pair_by_pair(features, kappa, points.ids, points.size)
            return tap_by_tap(features, kappa, points.ids, _index(points), points.size)

        return _normalised(total, features, taps, points, adjoint)

    def _taps_gradient(self, features: Tensor, grad: Tensor, points: Points, kernel_size: int) -> Tensor:
        window = window_of(kernel_size, points.scale)
        grad = grad * points.inverse_count
        if self._in_pairs(points):
            kappa = pair_by_pair_gradient(features, grad, points.ids, points.size, window)
        else:
            kappa = tap_by_tap_gradient(features, grad, points.ids, _index(points), points.size, window)
        return _to_taps(kappa, points, kernel_size)

    def _in_pairs(self, points: Points) -> bool:
        table = points.index is not None and points.index.dim() == 2
        return not table and bisects(points.ids, points.size)


class Dense(_Separate):
    """Convolution of complete images that are zero where there is no point: in PyTorch, or `compiled` CUDA kernels.

    The gradient to the features is the adjoint in the same kernels; that to the taps has ways of its own.
    """

    def __init__(self, *, compiled: bool) -> None:
        self.compiled = compiled

    def convolve(self, features: Tensor, taps: Tensor, points: Points, bias: Tensor | None) -> Tensor:
        if self._at_once(points):
            return self._by_kernels(features, taps, points, bias=bias)
        return super().convolve(features, taps, points, bias)

    def _at_once(self, points: Points) -> bool:
        """True where the kernels also normalise and add the bias."""
        return self.compiled and points.ids.shape[1] == points.size[0] * points.size[1]

    def _by_kernels(
        self, features: Tensor, taps: Tensor, points: Points, *, bias: Tensor | None = None, adjoint: bool = False
    ) -> Tensor:
        image, count = features.unflatten(1, points.size), points.inverse_count[0]
        out = dense_conv2d_kernels(image, taps, points.scale, factors=count, bias=bias, adjoint=adjoint)
        return out.flatten(1, 2)

    def _sum(self, features: Tensor, taps: Tensor, points: Points, *, adjoint: bool) -> Tensor:
        ids, size, scale = points[:3]
        if self._at_once(points):
            return self._by_kernels(features, taps, points, adjoint=adjoint)
        convolve = dense_conv2d_kernels if self.compiled else dense_conv2d

        def total(features: Tensor, taps: Tensor) -> Tensor:
            return image_to_rows(convolve(rows_to_image(features, ids, size), taps, scale), ids)

        return _normalised(total, features, taps, points, adjoint)

    def _taps_gradient(self, features: Tensor, grad: Tensor, points: Points, kernel_size: int) -> Tensor:
        ids, size, scale, _, count = points[:5]
        if self.compiled and max(window_of(kernel_size, scale)) <= kernels.MAX_WINDOW:
            return _searched_taps(features, grad, points, kernel_size)
        grad, window = grad * count, window_of(kernel_size, scale)
        if sums_over_pairs(ids, size, window):
            return _to_taps(taps_by_pairs(features, grad, ids, size, window), points, kernel_size)
        image = rows_to_image(features.to(grad.dtype), ids, size)
        return dense_taps_gradient(image, rows_to_image(grad, ids, size), kernel_size, scale)


def _normalised(
    total_of: Callable[[Tensor, Tensor], Tensor], features: Tensor, taps: Tensor, points: Points, adjoint: bool
) -> Tensor:
    """The operator or its adjoint, from a function of features and taps that sums without normalising."""
    dtype = features.dtype
    taps = taps.to(torch.promote_types(dtype, torch.float32))
    if adjoint:
        return total_of((features * points.inverse_count).to(dtype), taps.flip(-1, -2)).to(dtype)
    # The product is taken in the normaliser's precision: bfloat16 would round the count.
    return total_of(features, taps).mul_(points.inverse_count).to(dtype)


def _to_taps(kappa: Tensor, points: Points, kernel_size: int) -> Tensor:
    """The gradient to kappa (C, Kh, Kw) -> the gradient to the taps (C, 1, k, k)."""
    taps = kappa if points.scale == (1.0, 1.0) else resize_kernel_adjoint(kappa, kernel_size, *points.scale)
    return taps.unsqueeze(1)


# By the name that `routing.choose_route` returns.
ROUTES: dict[str, ConvolutionRoute] = {
    "kernels": Kernels(),
    "dense kernels": Dense(compiled=True),
    "lattice": Lattice(),
    "dense": Dense(compiled=False),
}

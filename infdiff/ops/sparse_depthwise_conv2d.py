"""Sparse depthwise integral operator (∞-Diff Eq. 16) on pixel subsets, normalised by the points present.

    out(c) = k^2 * sum_y kappa(y - c) v(y) / sum_y chi(y - c)        over the points y present

kappa is the tent interpolant of the k x k taps (ops/resize_kernel.py), chi the same with every tap 1. Taps are in
`conv2d`'s order: tap (i, j) multiplies the pixel at offset (i - (k-1)/2, j - (k-1)/2).

The operator is linear in the features and in the taps. Its adjoint in the features is the same sum with the kernel
turned around and the normaliser applied first; its adjoint in the taps correlates features and gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.dense_conv2d import (
    Scale,
    choose_form,
    dense_conv2d,
    dense_conv2d_kernels,
    dense_taps_gradient,
    window_of,
)
from infdiff.ops.gpu import kernels
from infdiff.ops.inverse_count import inverse_count
from infdiff.ops.lattice_index import lattice_index, lattice_index_ref
from infdiff.ops.registration import autocast, check_ids, check_same_device, operator
from infdiff.ops.resize_kernel import resize_kernel, resize_kernel_adjoint, resize_kernel_ref
from infdiff.ops.routing import BACKENDS, choose_route
from infdiff.ops.rows import gather_rows, scatter_rows
from infdiff.ops.tap_by_tap import tap_by_tap, tap_by_tap_gradient


def sparse_depthwise_conv2d_ref(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    size: Size,
    scale: Scale = (1.0, 1.0),
    index: Tensor | None = None,
    inverse: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The specification of `sparse_depthwise_conv2d`, written out tap by tap over the lattice index.

    Same arguments; computes the normaliser itself and takes one way only. Differentiable by PyTorch's own rules.
    """
    taps = taps.to(features.dtype)
    index = lattice_index_ref(ids, size) if index is None else index
    kappa, chi = resize_kernel_ref(taps[:, 0], scale), resize_kernel_ref(torch.ones_like(taps[0, 0]), scale)
    total = tap_by_tap(features, kappa, ids, index, size)
    present = features.new_ones(*ids.shape, 1)
    count = tap_by_tap(present, chi.unsqueeze(0), ids, index, size)
    return (taps.shape[-1] ** 2 * total / count).to(features.dtype)


def sparse_depthwise_conv2d(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    size: Size,
    scale: Scale = (1.0, 1.0),
    index: Tensor | None = None,
    inverse: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Sparse depthwise convolution on the points `ids` (B, L) of an image of `size`.

    features (B, L, C) of any floating type, taps (C, 1, k, k) with k odd, scale: pixels per base pixel for (rows,
    columns). Returns (B, L, C) in the features' type (autocast's, where it is on), summed in float32 or wider.
    Differentiable in features and taps; the gradients are the same bits in every run.

    What depends on the points alone can be handed over and serve many calls: index, the result of `lattice_index` (or
    of `torchsparse_backend.neighbour_table` with backend "torchsparse"), and inverse, that of `inverse_count`.
    backend: "auto", "lattice", "torchsparse" or "dense"; all give the same numbers.

    Raises ValueError naming the argument that does not fit.
    """
    features, taps = autocast(features, taps)
    check_arguments(features, taps, ids, size, scale, backend)
    if taps.shape[0] != features.shape[2] or taps.shape[1] != 1:
        raise ValueError(f"taps {tuple(taps.shape)} do not go with {features.shape[2]} channels: want (C, 1, k, k)")
    check_same_device(features, taps=taps, ids=ids, index=index, inverse=inverse)
    _check_shared(index, inverse, ids, size, taps.shape[-1], scale)
    scales = [float(s) for s in scale]
    if inverse is None:
        wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        inverse = inverse_count(ids, size, taps.shape[-1], scale, dtype=wide)
    result: Tensor = _forward(features, taps, ids, index, inverse, list(size), scales, backend)
    return result


def check_arguments(features: Tensor, taps: Tensor, ids: Tensor, size: Size, scale: Scale, backend: str) -> None:
    """Raise ValueError naming the argument whose shape, type or value does not fit. Looks at no element."""
    check_ids(ids, size)
    if features.dim() != 3 or features.shape[:2] != ids.shape:
        raise ValueError(f"features {tuple(features.shape)} do not go with ids {tuple(ids.shape)}: want (B, L, C)")
    if not features.is_floating_point():
        raise ValueError(f"features are {features.dtype}: want a floating type")
    if taps.dim() != 4 or taps.shape[-1] != taps.shape[-2] or taps.shape[-1] % 2 == 0:
        raise ValueError(f"taps {tuple(taps.shape)}: want (C, 1, k, k) or (O, C, k, k) with k odd")
    if taps.shape[-1] > kernels.MAX_WINDOW:
        raise ValueError(f"taps {tuple(taps.shape)}: k is at most {kernels.MAX_WINDOW}")
    if len(scale) != 2 or min(scale) <= 0:
        raise ValueError(f"scale {tuple(scale)}: want two positive numbers, pixels per base pixel of rows and columns")
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: choose one of {', '.join(BACKENDS)}")


def _check_shared(
    index: Tensor | None, inverse: Tensor | None, ids: Tensor, size: Size, kernel_size: int, scale: Scale
) -> None:
    """Raise ValueError unless index and inverse are of these points: kernels would read past the end of others."""
    images, table = (ids.shape[0], *size), (ids.numel(), kernel_size**2)
    if index is not None and (index.dtype != torch.int32 or index.shape not in (images, table)):
        raise ValueError(f"index {tuple(index.shape)} {index.dtype}: want {images} or {table} of torch.int32")
    if index is not None and index.dim() == 2 and tuple(scale) != (1.0, 1.0):
        raise ValueError(f"index is a neighbour table, which knows no scale but (1, 1): scale is {tuple(scale)}")
    rows = [(n, ids.shape[1], 1) for n in (1, ids.shape[0])]
    if inverse is not None and inverse.shape not in rows:
        raise ValueError(f"inverse {tuple(inverse.shape)}: want {rows[-1]}")


@operator("sparse_depthwise_conv2d")
def _forward(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    index: Tensor | None,
    inverse: Tensor,
    size: Sequence[int],
    scale: Sequence[float],
    backend: str,
) -> Tensor:
    points = _Points(ids, index, inverse, size, scale, backend)
    return points.convolve(features, taps, adjoint=False)


_forward.register_fake(lambda features, *_: _like(features))


@operator("sparse_depthwise_conv2d_backward")
def _backward(
    grad: Tensor,
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    index: Tensor | None,
    inverse: Tensor,
    size: Sequence[int],
    scale: Sequence[float],
    backend: str,
    to_features: bool,
    to_taps: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients to features and taps; an empty tensor for the one that nobody asked for."""
    points = _Points(ids, index, inverse, size, scale, backend)
    return (
        points.convolve(grad, taps, adjoint=True) if to_features else features.new_empty(0),
        points.taps_gradient(features, grad, taps.shape[-1]).to(taps.dtype) if to_taps else taps.new_empty(0),
    )


@_backward.register_fake
def _(grad: Tensor, features: Tensor, taps: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    to_features, to_taps = others[-2:]
    return (
        _like(features) if to_features else features.new_empty(0),
        _like(taps) if to_taps else taps.new_empty(0),
    )


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, taps, ids, index, inverse, ctx.size, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(features, taps, ids, index, inverse)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:2]
    gradients = _backward(grad, *ctx.saved_tensors, ctx.size, ctx.scale, ctx.backend, *needs)
    to_features, to_taps = (g if needed else None for g, needed in zip(gradients, needs, strict=True))
    return to_features, to_taps, None, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_remember)


class _Points:
    """The operator's two directions on one set of points, by the route that suits them."""

    def __init__(
        self,
        ids: Tensor,
        index: Tensor | None,
        inverse: Tensor,
        size: Sequence[int],
        scale: Sequence[float],
        backend: str,
    ) -> None:
        self.ids, self.index, self.inverse = ids, index, inverse
        self.size: Size = (size[0], size[1])
        self.scale: Scale = (scale[0], scale[1])
        self.everywhere = ids.shape[1] == size[0] * size[1]
        self.backend = backend

    def route(self, features: Tensor, kernel_size: int) -> str:
        return choose_route(features, self.size, kernel_size, self.scale, self.backend).name

    def convolve(self, features: Tensor, taps: Tensor, *, adjoint: bool) -> Tensor:
        """inverse * sum kappa v, or its adjoint: the kernel turned around, on features times inverse."""
        route = self.route(features, taps.shape[-1])
        if route == "kernels":
            kappa = resize_kernel(taps[:, 0].float(), self.scale)
            index = self._index()
            return kernels.sparse_conv(features, kappa, self.ids, index, self.inverse, self.size, transposed=adjoint)
        if route == "dense kernels" and self.everywhere and choose_form(taps, self.scale, compiled=True) == "direct":
            kappa = resize_kernel(taps[:, 0].float(), self.scale)
            before, after = (self.inverse[0], None) if adjoint else (None, self.inverse[0])
            image = features.unflatten(1, self.size)
            return kernels.dense_conv(image, kappa, before=before, after=after, turned=adjoint).flatten(1, 2)
        dtype = features.dtype
        taps = taps.to(torch.promote_types(dtype, torch.float32))
        if adjoint:
            features, taps = (features * self.inverse).to(dtype), taps.flip(-1, -2)
        if route == "lattice":
            total = tap_by_tap(features, resize_kernel(taps[:, 0], self.scale), self.ids, self._lattice(), self.size)
        else:
            convolve = dense_conv2d_kernels if route == "dense kernels" else dense_conv2d
            total = self._read(convolve(self._image(features), taps, self.scale))
        # The product is taken in the normaliser's precision: bfloat16 would round the count.
        return (total if adjoint else total.mul_(self.inverse)).to(dtype)

    def taps_gradient(self, features: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
        """(C, 1, k, k), in float32 or wider."""
        route = self.route(features, kernel_size)
        window = window_of(kernel_size, self.scale)
        if route == "kernels" or (route == "dense kernels" and max(window) <= kernels.MAX_WINDOW):
            index = None if self.everywhere else self._index()
            kappa = kernels.sparse_conv_taps(features, grad, self.ids, index, self.inverse, self.size, window)
            return self._to_taps(kappa, kernel_size).unsqueeze(1)
        grad = grad * self.inverse
        if route == "lattice":
            kappa = tap_by_tap_gradient(features, grad, self.ids, self._lattice(), self.size, window)
            return self._to_taps(kappa, kernel_size).unsqueeze(1)
        features = features.to(grad.dtype)
        return dense_taps_gradient(self._image(features), self._image(grad), kernel_size, self.scale)

    def _to_taps(self, kappa: Tensor, kernel_size: int) -> Tensor:
        return kappa if self.scale == (1.0, 1.0) else resize_kernel_adjoint(kappa, kernel_size, *self.scale)

    def _index(self) -> Tensor:
        if self.index is None:
            self.index = lattice_index(self.ids, self.size)
        return self.index

    def _lattice(self) -> Tensor:
        """The index image, also where a neighbour table was handed over."""
        index = self._index()
        return index if index.dim() == 3 else lattice_index(self.ids, self.size)

    def _image(self, features: Tensor) -> Tensor:
        """(B, H, W, C), zero where there is no point."""
        rows = features if self.everywhere else scatter_rows(features, self.ids, self.size[0] * self.size[1])
        return rows.unflatten(1, self.size)

    def _read(self, image: Tensor) -> Tensor:
        rows = image.reshape(image.shape[0], -1, image.shape[3])
        return rows if self.everywhere else gather_rows(rows, self.ids)

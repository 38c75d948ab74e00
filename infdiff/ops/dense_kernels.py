"""`dense_conv2d` of depthwise taps in our CUDA kernels, which also normalise and add a bias; without a gradient.

Four algorithms, in the terms of `dense_conv2d`:
- fused: if s is an integer, the sums of the dilated one in one kernel, which keeps rows in shared memory;
- direct: in one kernel, too;
- dilated: its three sums in a kernel each, where rows do not fit, or channels do not come in eights;
- tents.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.dense_conv2d import tents_and_rows, window_of
from infdiff.ops.gpu import enlarged, kernels
from infdiff.ops.resize_kernel import resize_kernel, tent_matrix

KERNEL_ALGORITHMS = ("fused", "direct", "dilated", "tents")

# By multiply-adds; not measured.
_MAX_DIRECT_WINDOW = 225


def choose_kernel_algorithm(taps: Tensor, scale: Scale) -> str:
    """Name the cheapest of KERNEL_ALGORITHMS for taps (C, 1, k, k) on the device that is to convolve."""
    integers = all(float(s).is_integer() for s in scale)
    if integers and enlarged.tile_of(len(taps), (taps.shape[2], taps.shape[3]), _steps(scale), taps.device):
        return "fused"
    if prod(window_of(taps.shape[-1], scale)) <= _MAX_DIRECT_WINDOW:
        return "direct"
    return "dilated" if integers else "tents"


def dense_conv2d_kernels(
    image: Tensor,
    taps: Tensor,
    scale: Scale,
    algorithm: str | None = None,
    *,
    rows: tuple[int, int] | None = None,
    factors: Tensor | None = None,
    bias: Tensor | None = None,
    adjoint: bool = False,
) -> Tensor:
    """factors * the sum over the window + bias: image (B, H, W, C), taps (C, 1, k, k) -> (B, rows, W, C).

    rows: (first, past the last) of those to make, by default all. factors: one (rows * W) for each pixel; bias (C,).
    adjoint: of all rows in the image, without bias: the factors come first. Sums are in float32 and rounded once.
    """
    algorithm = algorithm or choose_kernel_algorithm(taps, scale)
    taps, rows = taps[:, 0].float(), rows or (0, image.shape[1])
    if algorithm == "fused":
        steps = _steps(scale)
        return enlarged.enlarged_conv(image, taps, steps, rows, factors=factors, bias=bias, adjoint=adjoint)
    if algorithm == "direct":
        return _direct(image, resize_kernel(taps, scale), rows, factors, bias, adjoint)
    wide, apply = image.float(), {"dilated": _dilated, "tents": _tents}[algorithm]
    if adjoint:
        assert factors is not None
        wide, taps, factors = wide * factors.view(*image.shape[1:3], 1), taps.flip(-1, -2), None
    return apply(wide, taps, scale, rows, factors, bias).to(image.dtype)


def _steps(scale: Scale) -> Size:
    return round(scale[0]), round(scale[1])


def _direct(
    image: Tensor,
    kappa: Tensor,
    rows: tuple[int, int],
    factors: Tensor | None,
    bias: Tensor | None,
    adjoint: bool,
) -> Tensor:
    pad, size = (kappa.shape[1] // 2 - rows[0], kappa.shape[2] // 2), (rows[1] - rows[0], image.shape[2])
    before, after = (factors, None) if adjoint else (None, factors)
    return kernels.dense_conv(image, kappa, pad=pad, size=size, before=before, after=after, bias=bias, turned=adjoint)


def _dilated(
    image: Tensor, taps: Tensor, scale: Scale, rows: tuple[int, int], after: Tensor | None, bias: Tensor | None
) -> Tensor:
    height, width = image.shape[1:3]
    steps = _steps(scale)
    # How far the tents spread the image past its border, where the outer taps still read it.
    past = steps[0] - 1, steps[1] - 1
    tents = [tent_matrix(1, float(s), dtype=torch.float32, device=image.device).view(-1) for s in steps]
    image = kernels.dense_filter(image, tents[0][:, None], pad=(2 * past[0], 0), size=(height + 2 * past[0], width))
    size = (image.shape[1], width + 2 * past[1])
    image = kernels.dense_filter(image, tents[1][None], pad=(0, 2 * past[1]), size=size)
    half = taps.shape[-1] // 2
    pad = half * steps[0] - past[0] - rows[0], half * steps[1] - past[1]
    return kernels.dense_conv(image, taps, step=steps, pad=pad, size=(rows[1] - rows[0], width), after=after, bias=bias)


def _tents(
    image: Tensor, taps: Tensor, scale: Scale, rows: tuple[int, int], after: Tensor | None, bias: Tensor | None
) -> Tensor:
    height, width = image.shape[1:3]
    tents, across = tents_and_rows(taps, scale)
    total: Tensor | None = None
    for i in range(taps.shape[-2]):
        term = kernels.dense_conv(image, across[:, i : i + 1])
        pad = (tents.shape[0] // 2, 0)
        total = kernels.dense_filter(term, tents[:, i, None], pad=pad, size=(height, width), out=total)
    assert total is not None
    total = total[:, rows[0] : rows[1]]
    total = total if after is None else total * after.view(*total.shape[1:3], 1)
    return total if bias is None else total + bias

"""The convolution kernel as one function of position, and its values at any resolution.

kappa(u, v) = sum_ij taps[i, j] tent(u - i') tent(v - j') in units of the base resolution's pixel, with i' = i - (k-1)/2
and tent(x) = max(0, 1 - |x|): the bilinear interpolant of the taps, zero outside. At scale s (pixels per base
pixel) a pixel n away lies at u = n / s, and takes the value there. Below the base resolution, s < 1, a pixel's cell is
wider than the tents' spacing, and the value is the mean over the cell, u - 1 / (2 s) to u + 1 / (2 s): cells tile the
line, so the values add up to the integral, wherever the taps lie between the pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Scale
from infdiff.ops.registration import operator


def kernel_reach(kernel_size: int, scale: float) -> int:
    """The largest pixel offset at which the kernel is not zero, at `scale` pixels per base pixel."""
    half_width = scale * (kernel_size + 1) / 2 + _half_cell(scale)
    return max(0, math.ceil(half_width - 1e-9) - 1)


def tent_matrix(
    kernel_size: int, scale: float, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """The weight of tap i at pixel offset n, (2 * reach + 1, k): tent(n / scale - i'), or its mean over a cell."""
    reach = kernel_reach(kernel_size, scale)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) / scale
    tap = torch.arange(kernel_size, dtype=torch.float64, device=device) - (kernel_size - 1) / 2
    distance = offset[:, None] - tap
    if scale >= 1:
        return (1 - distance.abs()).clamp_(min=0).to(dtype)
    half = _half_cell(scale) / scale
    return (scale * (_tent_integral(distance + half) - _tent_integral(distance - half))).to(dtype)


def _half_cell(scale: float) -> float:
    """Half the width, in pixels, of what a value is the mean over: none where values are read at pixel centres."""
    return 0.5 if scale < 1 else 0.0


def _tent_integral(x: Tensor) -> Tensor:
    """The integral of tent(y) over y <= x."""
    x = x.clamp(-1, 1)
    return 0.5 + x - x * x.abs() / 2


def resize_kernel_ref(taps: Tensor, scale: Scale) -> Tensor:
    """The specification of `resize_kernel`, differentiable by PyTorch's own rules."""
    rows, columns = _tents(taps, scale)
    return rows @ taps @ columns.mT


def resize_kernel(taps: Tensor, scale: Scale) -> Tensor:
    """Taps (..., k, k) at the base resolution -> (..., Kh, Kw), kappa at every pixel offset at `scale` (row, column).

    At scale (1, 1) the taps themselves. Sums grow with the number of pixels; the operator divides by the count.
    Stays in the taps' type under autocast: it costs nothing, and its result is rounded where it is used.
    """
    if tuple(scale) == (1.0, 1.0):
        return taps
    result: Tensor = _resize_kernel(taps, *(float(s) for s in scale))
    return result


@operator("resize_kernel")
def _resize_kernel(taps: Tensor, scale_rows: float, scale_columns: float) -> Tensor:
    return resize_kernel_ref(taps, (scale_rows, scale_columns))


@_resize_kernel.register_fake
def _(taps: Tensor, scale_rows: float, scale_columns: float) -> Tensor:
    window = (2 * kernel_reach(k, s) + 1 for k, s in zip(taps.shape[-2:], (scale_rows, scale_columns), strict=True))
    return taps.new_empty((*taps.shape[:-2], *window))


@operator("resize_kernel_adjoint")
def resize_kernel_adjoint(kappa: Tensor, kernel_size: int, scale_rows: float, scale_columns: float) -> Tensor:
    """The adjoint of `resize_kernel`: (..., Kh, Kw) -> (..., k, k)."""
    rows, columns = (
        tent_matrix(kernel_size, s, dtype=kappa.dtype, device=kappa.device) for s in (scale_rows, scale_columns)
    )
    return rows.mT @ kappa @ columns


@resize_kernel_adjoint.register_fake
def _(kappa: Tensor, kernel_size: int, scale_rows: float, scale_columns: float) -> Tensor:
    return kappa.new_empty((*kappa.shape[:-2], kernel_size, kernel_size))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    taps, *scale = inputs
    ctx.kernel_size, ctx.scale = taps.shape[-1], scale


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return resize_kernel_adjoint(grad, ctx.kernel_size, *ctx.scale), None, None


_resize_kernel.register_autograd(_backward, setup_context=_remember)


def _tents(taps: Tensor, scale: Scale) -> list[Tensor]:
    return [
        tent_matrix(k, s, dtype=taps.dtype, device=taps.device) for k, s in zip(taps.shape[-2:], scale, strict=True)
    ]

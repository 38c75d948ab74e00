"""The convolution kernel as one function of position, and its values at any resolution.

kappa(u, v) = sum_ij taps[i, j] tent(u - i') tent(v - j') in units of the base resolution's pixel, with i' = i - (k-1)/2
and tent(x) = max(0, 1 - |x|): the bilinear interpolant of the taps, zero outside. At scale s (pixels per base
pixel) a pixel n away lies at u = n / s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kernel_reach(kernel_size: int, scale: float) -> int:
    """The largest pixel offset at which the kernel is not zero, at `scale` pixels per base pixel."""
    half_width = scale * (kernel_size + 1) / 2
    return max(0, math.ceil(half_width - 1e-9) - 1)


def tent_matrix(
    kernel_size: int, scale: float, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """(2 * reach + 1, k): how much tap i counts at pixel offset n, tent(n / scale - i')."""
    reach = kernel_reach(kernel_size, scale)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) / scale
    tap = torch.arange(kernel_size, dtype=torch.float64, device=device) - (kernel_size - 1) / 2
    return (1 - (offset[:, None] - tap).abs()).clamp_(min=0).to(dtype)


def resize_kernel(taps: Tensor, scale: tuple[float, float]) -> Tensor:
    """Taps (..., k, k) at the base resolution -> (..., Kh, Kw), kappa at every pixel offset at `scale` (row, column).

    At scale (1, 1) the taps themselves. Sums grow with the number of pixels; the operator divides by the count.
    """
    if scale == (1.0, 1.0):
        return taps
    rows = tent_matrix(taps.shape[-2], scale[0], dtype=taps.dtype, device=taps.device)
    columns = tent_matrix(taps.shape[-1], scale[1], dtype=taps.dtype, device=taps.device)
    return rows @ taps @ columns.mT

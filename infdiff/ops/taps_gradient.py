"""The gradient to depthwise taps, on a CPU: at each offset n of a window, sum over batch and points c of g(c) v(c + n).

Of complete images it is a depthwise convolution with the gradient g as the kernel. Where some pixels are points, it is
summed over the pairs of points alone, offset after offset.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size

# Measured on one CPU core with AVX-512 and with AVX2, 32 and 64 channels: for windows of these many pixels a
# convolution with the gradient as kernel takes less time than the library's gradient of a convolution, or than spectra.
_LEAST_WINDOW, _LARGEST_WINDOW = 25, 225
# Pixels of a kernel: as fast as any number, and few enough to sum in float32.
_KERNEL_PIXELS = 1 << 12
# Measured there, 3 x 3 to 15 x 15 taps: up to this density the pairs of points take less time than complete images.
_PAIRS_UP_TO_DENSITY = 0.3


def convolves(image: Tensor, window: Size) -> bool:
    """Return True where `taps_by_convolution` of images (B, C, H, W) is the fastest: in float32, by oneDNN on x86."""
    if image.dtype != torch.float32 or image.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return _LEAST_WINDOW <= prod(window) <= _LARGEST_WINDOW and torch.backends.cpu.get_cpu_capability().startswith(
        "AVX"
    )


def taps_by_convolution(image: Tensor, grad: Tensor, window: Size) -> Tensor:
    """Images and gradients (B, C, H, W) -> (C, 1, Kh, Kw): a few rows of a gradient at a time are a kernel."""
    (down, across), (channels, height, width) = (window[0] // 2, window[1] // 2), image.shape[1:]
    rows, kappa = max(1, _KERNEL_PIXELS // width), image.new_zeros(channels, *window)
    for number in range(len(image)):
        for top in range(0, height, rows):
            end = min(top + rows, height)
            first, last = max(0, top - down), min(height, end + down)
            missing = across, across, first - top + down, end + down - last
            around = F.pad(image[number : number + 1, :, first:last], missing)
            kappa += F.conv2d(around, grad[number, :, top:end].unsqueeze(1), groups=channels)[0]
    return kappa.unsqueeze(1)


def sums_over_pairs(ids: Tensor, size: Size, window: Size) -> bool:
    """Return True where `taps_by_pairs` of points `ids` (B, L) takes less time than complete images."""
    few = ids.shape[1] <= _PAIRS_UP_TO_DENSITY * size[0] * size[1]
    return few and ids.device.type == "cpu" and prod(window) <= _LARGEST_WINDOW


def taps_by_pairs(features: Tensor, grad: Tensor, ids: Tensor, size: Size, window: Size) -> Tensor:
    """Features and gradients (B, L, C) at points `ids` (B, L) -> (C, Kh, Kw), in float32 or wider."""
    batch, width, reach = len(ids), size[1], (window[0] // 2, window[1] // 2)
    # One image of point numbers: the batch's one above the other, in a margin that windows may reach into.
    row_length, rows = width + 2 * reach[1], size[0] + reach[0]
    row = torch.div(ids, width, rounding_mode="floor")
    image = torch.arange(batch)[:, None] * rows
    place = ((image + row + reach[0]) * row_length + ids - row * width + reach[1]).flatten()
    index = torch.full(((batch * rows + reach[0]) * row_length,), -1, dtype=torch.int32)
    index[place] = torch.arange(ids.numel(), dtype=torch.int32)
    dtype = torch.promote_types(grad.dtype, torch.float32)
    values, grads = (rows.flatten(0, 1).to(dtype) for rows in (features, grad))
    kappa = grads.new_empty(*window, grads.shape[1])
    kappa[reach] = (values * grads).sum(dim=0)
    middle = prod(window) // 2
    for number in range(middle):
        # The pairs at an offset are those at the opposite one, with their points exchanged.
        down, across = divmod(number, window[1])
        found = index.index_select(0, place + ((down - reach[0]) * row_length + across - reach[1]))
        of = (found >= 0).nonzero()[:, 0]
        near = found.index_select(0, of)
        kappa[down, across] = (values.index_select(0, near) * grads.index_select(0, of)).sum(dim=0)
        opposite = window[0] - 1 - down, window[1] - 1 - across
        kappa[opposite] = (values.index_select(0, of) * grads.index_select(0, near)).sum(dim=0)
    return kappa.permute(2, 0, 1).contiguous()

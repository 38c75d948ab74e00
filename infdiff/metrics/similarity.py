"""Similarity of two images pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _STD = 11, 1.5
_K1, _K2 = 0.01, 0.03
_MOST = 100.0


def psnr(a: Tensor, b: Tensor, peak: float = 255.0) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of each pair of images (B, C, H, W): (B,) float64, at most 100.

    peak: the width of the range of values, 2 for images in [-1, 1].
    """
    error = (a.double() - b.double()).square().flatten(1).mean(dim=1)
    return (10 * (peak**2 / error).log10()).clamp(max=_MOST)


def ssim(a: Tensor, b: Tensor, peak: float = 255.0) -> Tensor:
    """Return the structural similarity of each pair of images (B, C, H, W): (B,) float64, 1 for equal images.

    Wang et al. 2004, Eq. 13: a Gaussian window of 11 pixels and standard deviation 1.5, which stays within the image;
    the mean over pixels and channels. Raises ValueError for images smaller than the window.
    """
    if min(a.shape[2:]) < _WINDOW:
        raise ValueError(f"{a.shape[2]}x{a.shape[3]} pixels: SSIM takes at least {_WINDOW}")
    x, y = a.double().flatten(0, 1)[:, None], b.double().flatten(0, 1)[:, None]  # (B C, 1, H, W)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).view(len(a), -1).mean(dim=1)


def _blur(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 1, H - 10, W - 10)."""
    places = torch.arange(_WINDOW, dtype=images.dtype, device=images.device) - _WINDOW // 2
    taps = (-(places**2) / (2 * _STD**2)).exp()
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(images, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))

"""Radial power spectra of images, and the distance between two of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Variance of rounding to integers: power below it is not in the files.
_ROUNDING = 1 / 12
FIRST_RING = 2
# Pixels along the shorter side.
SMALLEST_SPECTRUM = 4


def radial_spectrum(images: Tensor) -> Tensor:
    """Return the power (B, K) float64 of images (B, C, H, W), the mean of `channel_spectra` over channels."""
    return _in_rings(_power(images).mean(dim=1, keepdim=True), images.shape)[:, 0]


def channel_spectra(images: Tensor) -> Tensor:
    """Return the power (B, C, K) float64 of images (B, C, H, W), at 2, 3, ... K + 1 = min(H, W) // 2 cycles a side.

    The side is the shorter one. Power is the mean of |FFT|^2 over a ring, in squared units of the values, so that white
    noise has its variance in every ring. A Hann window keeps the borders, where an image is not periodic, from looking
    like fine detail. Under it a single cycle cannot be told from the mean, which is removed, so rings start at two.
    Raises ValueError for images below 4 pixels.
    """
    return _in_rings(_power(images), images.shape)


def spectrum_distance(a: Tensor, b: Tensor) -> float:
    """Return the root mean square over rings of the ratio of two mean spectra (K,), in decibels."""
    ratio = 10 * ((a + _ROUNDING) / (b + _ROUNDING)).log10()
    return math.sqrt(float(ratio.square().mean()))


def _hann(count: int, device: torch.device) -> Tensor:
    """Return a Hann window with the period of the image."""
    return torch.hann_window(count, periodic=True, dtype=torch.float64, device=device)


def _power(images: Tensor) -> Tensor:
    """Return |FFT|^2 (B, C, H, W) float64 under the window."""
    height, width = images.shape[2:]
    if min(height, width) < SMALLEST_SPECTRUM:
        raise ValueError(f"{height}x{width} pixels: a spectrum takes at least {SMALLEST_SPECTRUM}")
    window = torch.outer(*(_hann(n, images.device) for n in (height, width)))
    x = images.double()
    mean = (x * window).sum(dim=(2, 3), keepdim=True) / window.sum()
    return torch.fft.fft2((x - mean) * window).abs().square() / window.square().sum()


def _in_rings(power: Tensor, shape: torch.Size) -> Tensor:
    """Return the mean over each ring (B, C, K) of power (B, C, H, W)."""
    height, width = shape[2:]
    shorter = min(height, width)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64, device=power.device) for n in (height, width))
    radius = (rows[:, None].square() + columns.square()).sqrt()
    ring = (radius * shorter).round().long().flatten()  # (H W,)
    count = shorter // 2 - (FIRST_RING - 1)
    inside = (ring >= FIRST_RING) & (ring <= shorter // 2)
    places = ring[inside] - FIRST_RING
    sums = power.new_zeros(*power.shape[:2], count).index_add_(2, places, power.flatten(2)[:, :, inside])
    return sums / torch.bincount(places, minlength=count)

"""Conversion of pixel values: RGB files and data sets hold 0..255, models and processes work in [-1, 1].

Fields (B, C, H, W) are float32 and normalised as they are; NaN marks missing pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(images: Tensor) -> Tensor:
    """Convert 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_values(images: Tensor) -> Tensor:
    """Convert images as data sets hold them to float32: uint8 to [-1, 1], fields as they are."""
    return from_uint8(images) if images.dtype == torch.uint8 else images.float()


def valid_pixels(values: Tensor) -> Tensor:
    """Return the pixels (B, H, W) of fields (B, C, H, W) that are not missing."""
    return ~values.isnan().any(dim=1)


def to_uint8(images: Tensor) -> Tensor:
    """Convert [-1, 1] to 0..255, clipped and rounded."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

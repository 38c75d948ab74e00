"""Resizing for feature networks as published numbers do it: Pillow's bicubic filter, antialiased."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def resized(images: Tensor, side: int, *, eight_bit: bool = False) -> Tensor:
    """Resize images (B, 3, H, W) uint8 to (B, 3, side, side) float32 on the CPU, values in [0, 255].

    Each channel is an image of its own, in float32, clipped and not rounded, as clean-fid does it (Parmar et al. 2022).
    eight_bit: grey levels, rounded after each of the filter's two passes, as Pillow does for 8-bit images.
    """
    # Pillow's, because PyTorch's antialiased interpolation is up to 0.006 grey levels off: its taps are float32.
    planes = images.cpu().flatten(0, 1).numpy()  # (3 B, H, W)
    if not eight_bit:
        planes = planes.astype(np.float32)
    found = np.empty((len(planes), side, side), np.float32)
    for place, plane in enumerate(planes):
        found[place] = np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(found).clamp_(0, 255).view(-1, 3, side, side)


def resizing(side: int, *, eight_bit: bool = False) -> str:
    """Name the preprocessing of `resized`: features of one name can be compared."""
    return f"Pillow's bicubic to {side} in {'8 bits' if eight_bit else 'float'}"

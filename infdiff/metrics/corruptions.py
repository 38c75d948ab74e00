"""Corruptions of known strength, to calibrate the metrics."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size

_REACH = 4  # of the blur, in standard deviations


def blur(images: Tensor, std: float = 1.0) -> Tensor:
    """Blur images (B, 3, H, W) uint8 with a Gaussian of `std` pixels and reflected borders."""
    radius = min(round(_REACH * std), *(n - 1 for n in images.shape[2:]))
    places = torch.arange(-radius, radius + 1, device=images.device)
    taps = (-places.square() / (2 * std**2)).exp()
    taps = (taps / taps.sum()).expand(images.shape[1], 1, -1)
    x = F.pad(images.float(), (radius,) * 4, mode="reflect")
    x = F.conv2d(x, taps[:, :, :, None], groups=len(taps))
    return _rounded(F.conv2d(x, taps[:, :, None, :], groups=len(taps)))


def down_and_up(images: Tensor, factor: int) -> Tensor:
    """Downsample images (B, 3, H, W) uint8 by `factor` along each side, antialiased, and upsample them again."""
    small = resize_bicubic(images, (max(1, images.shape[2] // factor), max(1, images.shape[3] // factor)))
    return resize_bicubic(small, (images.shape[2], images.shape[3]))


def resize_bicubic(images: Tensor, size: Size) -> Tensor:
    """Resize images (B, 3, h, w) uint8 to `size`; antialiased when downsampling."""
    return _rounded(F.interpolate(images.float(), size, mode="bicubic", antialias=True, align_corners=False))


def noise(images: Tensor) -> Tensor:
    """Return uniform noise in the shape of images (B, 3, H, W) uint8."""
    # Seeded by the images, so that the batches of a set differ.
    generator = torch.Generator().manual_seed(int(images.sum(dtype=torch.int64)))
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator).to(images.device)


def _rounded(images: Tensor) -> Tensor:
    return images.clamp(0, 255).round().to(torch.uint8)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred by 1 pixel": blur,
    "bicubic from 1/2": lambda images: down_and_up(images, 2),
    "bicubic from 1/4": lambda images: down_and_up(images, 4),
    "bicubic from 1/8": lambda images: down_and_up(images, 8),
    "noise": noise,
}

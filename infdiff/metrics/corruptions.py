"""Real images made worse in known ways: what a distance says of them tells what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size

_REACH = 4  # of the blur, in standard deviations


def blur(images: Tensor, std: float = 1.0) -> Tensor:
    """Images (B, 3, H, W) uint8 under a Gaussian of `std` pixels, borders mirrored."""
    radius = min(round(_REACH * std), *(n - 1 for n in images.shape[2:]))
    places = torch.arange(-radius, radius + 1, device=images.device)
    taps = (-places.square() / (2 * std**2)).exp()
    taps = (taps / taps.sum()).expand(images.shape[1], 1, -1)
    x = F.pad(images.float(), (radius,) * 4, mode="reflect")
    x = F.conv2d(x, taps[:, :, :, None], groups=len(taps))
    return _rounded(F.conv2d(x, taps[:, :, None, :], groups=len(taps)))


def through_smaller(images: Tensor, part: int) -> Tensor:
    """Images (B, 3, H, W) uint8 reduced to one pixel in `part` along each side, antialiased, and enlarged."""
    small = enlarge(images, (max(1, images.shape[2] // part), max(1, images.shape[3] // part)))
    return enlarge(small, (images.shape[2], images.shape[3]))


def enlarge(images: Tensor, size: Size) -> Tensor:
    """Images (B, 3, h, w) uint8 -> (B, 3, H, W) uint8 of `size`, bicubic; antialiased where it is smaller."""
    return _rounded(F.interpolate(images.float(), size, mode="bicubic", antialias=True, align_corners=False))


def noise(images: Tensor) -> Tensor:
    """As many images (B, 3, H, W) uint8 of independent values, every one of them equally likely."""
    # Other images, other noise: batches of a set must not repeat one another.
    generator = torch.Generator().manual_seed(int(images.sum(dtype=torch.int64)))
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator).to(images.device)


def _rounded(images: Tensor) -> Tensor:
    return images.clamp(0, 255).round().to(torch.uint8)


DAMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred by 1 pixel": blur,
    "bicubic from 1/2": lambda images: through_smaller(images, 2),
    "bicubic from 1/4": lambda images: through_smaller(images, 4),
    "bicubic from 1/8": lambda images: through_smaller(images, 8),
    "noise": noise,
}

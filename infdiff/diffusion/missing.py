"""Missing pixels: averages over what is known of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Blur = Callable[[Tensor], Tensor]


def masked(images: Tensor, valid: Tensor) -> Tensor:
    """Images (B, C, H, W) with 0 at pixels that are not valid (B, H, W), whatever stands there, NaN included."""
    return torch.where(valid[:, None], images, torch.zeros((), dtype=images.dtype, device=images.device))


def known_average(blur: Blur, images: Tensor, valid: Tensor) -> Tensor:
    """T(x m) / T(m), the normalised convolution: T of what is known of images (B, C, H, W), m = valid (B, H, W).

    Equal to T x where all of it is known; 0 where T reaches no valid pixel.
    """
    share = blur(valid[:, None].to(images.dtype))
    known = share > torch.finfo(share.dtype).eps
    return torch.where(known, blur(masked(images, valid)) / torch.where(known, share, torch.ones_like(share)), 0.0)


def valid_mean(error: Tensor, valid: Tensor) -> Tensor:
    """The mean (B,) of errors (B, C, H, W) over the valid pixels (B, H, W) of each image, and channels."""
    count = (error.shape[1] * valid.flatten(1).sum(dim=1)).clamp(min=1)
    return masked(error, valid).flatten(1).sum(dim=1) / count

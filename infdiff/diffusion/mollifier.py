"""The mollifier T (∞-Diff sections 3.1 and 3.2), its approximate inverse, and mollified noise at any resolution.

T is a Gaussian of fixed physical width on the unit square: its standard deviation is sigma pixels at the base
resolution R and sigma * r / R pixels at resolution r, each axis by its own scale. White noise has standard deviation
r / R per pixel, so the law of T xi does not depend on r.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from infdiff.coordinates import Size, scale_of
from infdiff.diffusion.dct import filter_image

# scipy.ndimage.gaussian_filter's default: the sampled Gaussian ends after this many standard deviations.
_TRUNCATE = 4.0
# From this width (in pixels) up, the sampled Gaussian keeps the variance of T xi to 2 %.
_RESOLVED_STD = 0.75


@lru_cache(maxsize=64)
def gaussian_response(n: int, std: float, device: torch.device) -> Tensor:
    """(n,) float64: the factor by which T multiplies each DCT-II mode of n pixels; std in pixels.

    That of the sampled, truncated and normalised Gaussian of `scipy.ndimage.gaussian_filter`.
    """
    if std <= 0:
        return torch.ones(n, dtype=torch.float64, device=device)
    radius = int(_TRUNCATE * std + 0.5)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    weight = torch.exp(-0.5 * (offset / std) ** 2)
    frequency = torch.arange(n, dtype=torch.float64, device=device) * (math.pi / n)
    return (torch.cos(frequency[:, None] * offset) @ weight) / weight.sum()


class Mollifier:
    """T for a width `sigma` in pixels of the `base` resolution (H, W)."""

    def __init__(self, sigma: float, base: Size) -> None:
        if sigma < 0:
            raise ValueError(f"sigma={sigma}: the mollifier's width cannot be negative")
        self.sigma, self.base = sigma, base

    def std(self, size: Size) -> tuple[float, float]:
        """Standard deviation in pixels of (rows, columns) at `size`."""
        scale = scale_of(size, self.base)
        return self.sigma * scale[0], self.sigma * scale[1]

    def __call__(self, image: Tensor) -> Tensor:
        """T applied to images (..., H, W) with symmetric boundaries."""
        return filter_image(image, self._response(image))

    def twice(self, image: Tensor) -> Tensor:
        """T T applied to images (..., H, W): the covariance of mollified white noise, in units of the white one's."""
        return filter_image(image, self._response(image) ** 2)

    def wiener_inverse(self, image: Tensor, epsilon: float = 0.05) -> Tensor:
        """The Wiener filter of section 3.2, g / (g^2 + epsilon^2); epsilon estimates noise over signal.

        Raises ValueError unless epsilon is positive.
        """
        if epsilon <= 0:
            raise ValueError(f"epsilon={epsilon}: the Wiener filter needs a positive noise-to-signal ratio")
        gain = self._response(image)
        return filter_image(image, gain / (gain.square() + epsilon**2))

    def noise_variance(self) -> float:
        """Variance of T xi at a point: 1 / (4 pi sigma^2); 1 without a mollifier."""
        return 1 / (4 * math.pi * self.sigma**2) if self.sigma else 1.0

    def noise(self, batch: int, channels: int, size: Size, generators: list[torch.Generator]) -> Tensor:
        """T xi: (batch, channels, H, W) float32, image i from generators[i], or all from one generator."""
        return self.noise_pair(batch, channels, size, generators)[1]

    def noise_pair(
        self, batch: int, channels: int, size: Size, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """White noise xi and T xi, as `noise`.

        Where pixels are too coarse to resolve the blur, both are drawn on a lattice an odd factor finer and read at the
        pixels' centres, so that the variance and covariance of T xi are those of the function at every size.
        """
        device = generators[0].device
        factors = [_odd_factor(std) for std in self.std(size)]
        fine = size[0] * factors[0], size[1] * factors[1]
        each = batch // len(generators)
        white = torch.cat([torch.randn(each, channels, *fine, device=device, generator=g) for g in generators])
        centres = (..., slice(factors[0] // 2, None, factors[0]), slice(factors[1] // 2, None, factors[1]))
        if not self.sigma:
            return white, white
        scale = scale_of(fine, self.base)
        white *= math.sqrt(scale[0] * scale[1])
        return white[centres].contiguous(), self(white)[centres].contiguous()

    def _response(self, image: Tensor) -> Tensor:
        """(H, W) float64: the factor of each DCT-II mode."""
        height, width = image.shape[-2:]
        rows, columns = self.std((height, width))
        down = gaussian_response(height, rows, image.device)
        return down[:, None] * gaussian_response(width, columns, image.device)


def _odd_factor(std: float) -> int:
    """The smallest odd refinement that brings a width in pixels up to the resolved one; 1 for no mollifier."""
    if std <= 0 or std >= _RESOLVED_STD:
        return 1
    return 2 * math.ceil((_RESOLVED_STD / std - 1) / 2) + 1

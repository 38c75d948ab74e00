"""The mollifier T (∞-Diff sections 3.1 and 3.2), its approximate inverse, and mollified noise at any resolution.

T is a Gaussian of fixed physical width on the unit square: its standard deviation is sigma pixels at the base
resolution R and sigma * r / R pixels at resolution r, each axis by its own scale. White noise has standard deviation
r / R per pixel, so the law of T xi does not depend on r.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from infdiff.coordinates import Size, scale_of
from infdiff.diffusion.dct import filter_image
from infdiff.precision import without_autocast

# scipy.ndimage.gaussian_filter's default: the sampled Gaussian ends after this many standard deviations.
_TRUNCATE = 4.0
# Up to this many pixels a side T is two products of matrices, several times as fast as transforms; else products of
# their bands, for this many pixels of a line each: linear in the pixels, and in no more memory than a few images.
_LARGEST_MATRIX, _BAND = 1024, 64
# PyTorch draws normal numbers in groups of these on a CPU: a number of them at once, or in two parts, are the same.
_DRAWN_AT_ONCE = 16
# From this width (in pixels) up, the sampled Gaussian keeps the variance of T xi to 2 %.
_RESOLVED_STD = 0.75

# (first column, (some rows, their columns)): a matrix, some rows at a time, without columns of zeros.
Bands = list[tuple[int, Tensor]]


@lru_cache(maxsize=64)
def gaussian_response(n: int, std: float, device: torch.device) -> Tensor:
    """(n,) float64: the factor by which T multiplies each DCT-II mode of n pixels; std in pixels.

    That of the sampled, truncated and normalised Gaussian of `scipy.ndimage.gaussian_filter`.
    """
    offset, weight = _taps(std, device)
    frequency = torch.arange(n, dtype=torch.float64, device=device) * (math.pi / n)
    return (torch.cos(frequency[:, None] * offset) @ weight) / weight.sum()


def _taps(std: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The sampled Gaussian: offsets in pixels, and its values there, not yet of sum 1; float64. No width: one tap."""
    radius = int(_TRUNCATE * std + 0.5)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    return offset, torch.exp(-0.5 * (offset / std) ** 2) if std > 0 else torch.ones_like(offset)


@lru_cache(maxsize=64)
def _blur_matrix(n: int, std: float, factor: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n // factor, n): T on a line of n pixels, read at the centre of every `factor` of them."""
    response = gaussian_response(n, std, device)
    lines = filter_image(torch.eye(n, dtype=torch.float64, device=device), response.expand(n, -1))
    return lines.mT[factor // 2 :: factor].to(dtype).contiguous()


@lru_cache(maxsize=64)
def _bands(n: int, std: float, factor: int, dtype: torch.dtype, device: torch.device) -> Bands:
    """`_blur_matrix` in bands, made on the CPU: where they begin is known to the host without waiting for a device."""
    offset, weight = _taps(std, "cpu")
    bands = []
    for centre in torch.arange(factor // 2, n, factor).split(_BAND):
        place = (centre[:, None] + offset.long()) % (2 * n)
        place = torch.minimum(place, 2 * n - 1 - place)  # pixels beyond an end are those before it, mirrored
        first, last = int(place.min()), int(place.max())
        band = torch.zeros(len(centre), last - first + 1, dtype=torch.float64)
        band.scatter_add_(1, place - first, (weight / weight.sum()).expand(len(centre), -1))
        bands.append((first, band.to(device, dtype)))
    return bands


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
        return self._blurred(image, (1, 1))

    def twice(self, image: Tensor) -> Tensor:
        """T T applied to images (..., H, W): the covariance of mollified white noise, in units of the white one's."""
        if max(image.shape[-2:]) > _LARGEST_MATRIX:
            return self(self(image))
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
        pixels = math.prod(n * factor for n, factor in zip(size, self._factors(size), strict=True))
        if generators[0].device.type == "cpu" and max(size) > _LARGEST_MATRIX and pixels % _DRAWN_AT_ONCE == 0:
            # One plane at a time: the same numbers, of which there can be many for each pixel.
            each = batch // len(generators) * channels
            planes = [self.noise_pair(1, 1, size, [g])[1] for g in generators for _ in range(each)]
            return torch.cat(planes).view(batch, channels, *size)
        return self.noise_pair(batch, channels, size, generators)[1]

    def noise_pair(
        self,
        batch: int,
        channels: int,
        size: Size,
        generators: list[torch.Generator],
        kept: Callable[[Tensor], Tensor] = lambda white: white,
    ) -> tuple[Tensor, Tensor]:
        """White noise xi and T xi, as `noise`; kept: takes the rows that are wanted, before T.

        Where pixels are too coarse to resolve the blur, both are drawn on a lattice an odd factor finer and read at the
        pixels' centres, so that the variance and covariance of T xi are those of the function at every size.
        """
        device = generators[0].device
        factors = self._factors(size)
        fine = size[0] * factors[0], size[1] * factors[1]
        each = batch // len(generators)
        drawn = [torch.randn(each, channels, *fine, device=device, generator=g) for g in generators]
        white = kept(drawn[0] if len(drawn) == 1 else torch.cat(drawn))
        if not self.sigma:
            return white, white
        scale = scale_of(fine, self.base)
        white *= math.sqrt(scale[0] * scale[1])
        return _read(white, factors), self._blurred(white, factors)

    def _factors(self, size: Size) -> tuple[int, int]:
        down, across = self.std(size)
        return _odd_factor(down), _odd_factor(across)

    def _blurred(self, image: Tensor, factors: tuple[int, int]) -> Tensor:
        """T of images (..., H, W), read at every `factors`-th pixel of (rows, columns)."""
        size, device = (image.shape[-2], image.shape[-1]), image.device
        dtype = torch.promote_types(image.dtype, torch.float32)
        lines = list(zip(size, self.std(size), factors, strict=True))
        with without_autocast(device):
            if max(size) <= _LARGEST_MATRIX:
                down, across = (_blur_matrix(*line, dtype, device) for line in lines)
                return (down @ image.to(dtype) @ across.mT).to(image.dtype)
            rows, columns = (_bands(*line, dtype, device) for line in lines)
            height, width = (n // factor for n, _, factor in lines)
            made = image.new_empty(image.shape[:-2].numel(), height, width)
            for place, plane in enumerate(image.reshape(-1, *size)):
                made[place] = _by_bands(plane.to(dtype), rows, columns)
        return made.view(*image.shape[:-2], height, width)

    def _response(self, image: Tensor) -> Tensor:
        """(H, W) float64: the factor of each DCT-II mode."""
        height, width = image.shape[-2:]
        rows, columns = self.std((height, width))
        down = gaussian_response(height, rows, image.device)
        return down[:, None] * gaussian_response(width, columns, image.device)


def _by_bands(plane: Tensor, rows: Bands, columns: Bands) -> Tensor:
    """A plane (H, W) multiplied by the matrices of rows and of columns."""
    lines = torch.cat([band @ plane[first : first + band.shape[1]] for first, band in rows])
    return torch.cat([lines[:, first : first + band.shape[1]] @ band.mT for first, band in columns], dim=1)


def _read(image: Tensor, factors: tuple[int, int]) -> Tensor:
    """Every `factors`-th pixel of images (..., H, W), by rows and columns: those in the middle."""
    return image[..., factors[0] // 2 :: factors[0], factors[1] // 2 :: factors[1]].contiguous()


def _odd_factor(std: float) -> int:
    """The smallest odd refinement that brings a width in pixels up to the resolved one; 1 for no mollifier."""
    if std <= 0 or std >= _RESOLVED_STD:
        return 1
    return 2 * math.ceil((_RESOLVED_STD / std - 1) / 2) + 1

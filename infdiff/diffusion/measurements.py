"""Measurements of images, and two operators that measure, with their pseudo-inverses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size


@dataclass(frozen=True)
class Measurement:
    """values = operator(image) + noise * (white noise of variance 1).

    operator: images (B, C, H, W) in [-1, 1] -> (B, ...); values: (B, ...), or (1, ...) for one image measured once.
    pseudo_inverse: of a linear operator, back to images. mollified: the same measurement of T x_0, where it is known.
    """

    values: Tensor
    operator: Callable[[Tensor], Tensor]
    pseudo_inverse: Callable[[Tensor], Tensor] | None = None
    noise: float = 0.0
    mollified: Tensor | None = None

    def back(self, values: Tensor) -> Tensor:
        """The pseudo-inverse of values. Raises ValueError without one."""
        if self.pseudo_inverse is None:
            raise ValueError("a measurement without a pseudo-inverse: projection needs one")
        return self.pseudo_inverse(values)

    def on_range(self, images: Tensor) -> Tensor:
        """The part of images (B, C, H, W) that the operator sees."""
        return self.back(self.operator(images))

    def agreed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) with the part that the operator sees replaced by what was measured."""
        return images + self.back(self.values - self.operator(images))

    @cached_property
    def noise_in_image(self) -> float:
        """Standard deviation of the noise in the part of an image that the operator sees; the mean over it.

        Every pixel's, where operator(pseudo-inverse's transpose) is a multiple of the identity, as for `Reduction`.
        """
        if self.noise == 0:
            return 0.0
        generator = torch.Generator().manual_seed(0)
        white = torch.randn(self.values[:1].shape, generator=generator).to(self.values)
        image = self.back(white)
        seen = self.operator(image)
        return self.noise * float(image.norm() / seen.norm().clamp(min=torch.finfo(seen.dtype).tiny))


@dataclass(frozen=True)
class Reduction:
    """The means over the cells of a smaller size: images (B, C, H, W) of `size` -> (B, C, h, w)."""

    size: Size
    small: Size

    def __call__(self, images: Tensor) -> Tensor:
        return F.interpolate(images, self.small, mode="area")

    def A_dagger(self, small: Tensor) -> Tensor:  # noqa: N802 (deepinv's name for it)
        """The pseudo-inverse: (B, C, h, w) -> (B, C, H, W). Repeats each pixel where the sizes divide."""
        if all(n % m == 0 for n, m in zip(self.size, self.small, strict=True)):
            return F.interpolate(small, self.size, mode="nearest")
        down, across = (_spread(n, m) for n, m in zip(self.size, self.small, strict=True))
        return down.to(small) @ small @ across.to(small).mT


@dataclass(frozen=True)
class Mask:
    """The pixels that are visible (H, W) bool, the others 0: it is its own pseudo-inverse."""

    visible: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return images * self.visible.to(images)

    def A_dagger(self, images: Tensor) -> Tensor:  # noqa: N802 (deepinv's name for it)
        """The pseudo-inverse, (B, C, H, W) to the same shape."""
        return self(images)


@lru_cache(maxsize=8)
def _spread(n: int, m: int) -> Tensor:
    """(n, m) float64: the pseudo-inverse of means over m cells of n pixels."""
    means = F.adaptive_avg_pool1d(torch.eye(n, dtype=torch.float64), m).mT
    return torch.linalg.pinv(means)

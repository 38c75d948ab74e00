"""Upsampled images, for fine-tuning at a resolution that has no images of its own (DFU appendix C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.data.examples import Examples


class Upsampled:
    """The same images, bilinearly upsampled to `size` (H, W)."""

    def __init__(self, examples: Examples, size: Size) -> None:
        self.examples, self.size = examples, size

    @property
    def images(self) -> Tensor | None:
        return self.examples.images

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> Tensor:
        return self._upsample(self.examples[place][None])[0]

    def take(self, places: Tensor) -> Tensor:
        """Return (B, 3, H, W) uint8 images at `places` (B,)."""
        return self._upsample(self.examples.take(places))

    def _upsample(self, images: Tensor) -> Tensor:
        return F.interpolate(images.float(), self.size, mode="bilinear").round().to(torch.uint8)

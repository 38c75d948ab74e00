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

    @property
    def labels(self) -> Tensor | None:
        return self.examples.labels

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> Tensor:
        return self._upsample(self.examples[place][None])[0]

    def take(self, places: Tensor) -> Tensor:
        """Return images (B, C, H, W) at `places` (B,)."""
        return self._upsample(self.examples.take(places))

    def _upsample(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return F.interpolate(images.float(), self.size, mode="bilinear").round().to(torch.uint8)
        # Of fields, the mean of what is known where at least half of it is.
        valid = ~images.isnan().any(dim=1, keepdim=True)
        share = F.interpolate(valid.float(), self.size, mode="bilinear")
        sums = F.interpolate(torch.where(valid, images, 0.0), self.size, mode="bilinear")
        return torch.where(share >= 0.5, sums / share.clamp(min=0.5), torch.nan)

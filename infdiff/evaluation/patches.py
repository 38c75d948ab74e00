"""Patches of images at their full resolution, which feature networks would see reduced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError
from infdiff.seeding import generator_for

_BATCH = 64


@dataclass(frozen=True)
class PatchCutter:
    """Cuts square patches of `side` pixels at random places, which depend on the seed and the patch's number alone."""

    side: int
    seed: int

    def require_within(self, size: Size) -> None:
        """Raise OptionError when images of a size hold no patch."""
        if self.side > min(size):
            raise OptionError("patches", self.side, f"larger than images of {format_size(size)}")

    def count(self, images: int, size: Size) -> int:
        """Return how many patches are cut from a number of images: as many as fit side by side into each."""
        return images * (size[0] // self.side) * (size[1] // self.side)

    def batches(
        self, images: Callable[[Sequence[int]], Tensor], available: int, size: Size, count: int
    ) -> Iterator[Tensor]:
        """Yield `count` patches as batches (B, 3, side, side) uint8, from all of the images as evenly as can be.

        images: returns (B, 3, H, W) uint8 of `size` by their numbers, which are below `available`.
        """
        held, image = -1, torch.empty(0)
        for start in range(0, count, _BATCH):
            batch = []
            for number in range(start, min(start + _BATCH, count)):
                wanted = number * available // count
                if wanted != held:
                    held, image = wanted, images([wanted])[0]
                top, left = self._place(number, size)
                batch.append(image[:, top : top + self.side, left : left + self.side])
            yield torch.stack(batch)

    def _place(self, number: int, size: Size) -> tuple[int, int]:
        generator = generator_for("cpu", self.seed, "patch", number)
        top, left = (int(torch.randint(length - self.side + 1, (), generator=generator)) for length in size)
        return top, left

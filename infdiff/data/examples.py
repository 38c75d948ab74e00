"""Protocols of training examples: anything that can be indexed."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from infdiff.coordinates import Size


class Examples(Protocol):
    """Training examples: an ImageSet, or anything that can be indexed."""

    @property
    def images(self) -> Tensor | None:
        """All of them if they are held in memory, else None: then worker processes read them."""

    @property
    def labels(self) -> Tensor | None:
        """Their labels (N, label_dim) float32; None for examples without."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Tensor: ...

    def take(self, places: Tensor) -> Tensor:
        """Return the examples at `places` (B,)."""


class ResizableExamples(Examples, Protocol):
    """Images that can be had at any size."""

    def at(self, size: Size) -> Examples:
        """Return the same images at a size (H, W)."""

"""What a person looks at, beside the numbers: images, their nearest training images, and spectra."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Beside:
    """An image and others that lie near it, nearest first: (3, H, W) and (K, 3, H, W) uint8, distances (K,)."""

    image: Tensor
    others: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Look:
    """Of the images of one row of results, known by what they are and their size.

    sheet: (3, H, W) uint8, some of them; captions say what its rows are, where they differ. spectrum, real_spectrum:
    mean power (K,) at 2, 3, ... cycles a shorter side, of the size compared at.
    """

    what: str
    size: str
    sheet: Tensor | None = None
    captions: tuple[str, ...] = ()
    neighbours: tuple[Beside, ...] = ()
    spectrum: Tensor | None = None
    real_spectrum: Tensor | None = None

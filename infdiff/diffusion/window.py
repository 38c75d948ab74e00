"""Gaussian windows over a line of cells: what a point reads of a lattice, and with which weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import cell_centres, to_cell_units


class Window(NamedTuple):
    """Cells around each of P places on a line, and their weights."""

    place: Tensor  # (P, taps) int64: cell numbers, those beyond an end reflected about it
    weight: Tensor  # (P, taps)


def windows(pixels: int, cells: int, std: float, taps: int, device: torch.device | str | None = None) -> Window:
    """The `taps` of the cells nearest to the centre of each pixel of a line, weighted by a Gaussian of `std` cells.

    weights: float64, 1 at the centre. Reflection is half-sample symmetric, as that of DCT-II.
    """
    centre = to_cell_units(cell_centres(pixels, device=device), cells)
    first = torch.ceil(centre - taps / 2).long()
    number = first[:, None] + torch.arange(taps, device=device)
    weight = torch.exp(-0.5 * ((number - centre[:, None]) / std) ** 2)
    folded = number % (2 * cells)
    return Window(torch.minimum(folded, 2 * cells - 1 - folded), weight)

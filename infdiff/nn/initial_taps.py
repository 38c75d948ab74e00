"""Initial values of the taps of sparse convolutions.

Over a random part of the pixels, taps drawn one by one only add the noise of the draw. Smooth taps are local averages
and differences of them from the first step on.
"""

from __future__ import annotations

import torch
from torch import Tensor

INITIAL_TAPS = ("noise", "smooth")

# In pixels of the base resolution.
_NARROWEST, _WIDEST = 0.3, 3.0
_FARTHEST = 1.5
_SURROUND = 2.0


def initial_taps(kind: str, channels: int, inputs: int, kernel_size: int) -> Tensor:
    """Taps (channels, inputs, k, k) float32, drawn from the global generator. kind: one of INITIAL_TAPS.

    Raises ValueError for an unknown kind.
    """
    if kind not in INITIAL_TAPS:
        raise ValueError(f"unknown initial taps {kind!r}: choose one of {', '.join(INITIAL_TAPS)}")
    shape = (channels, inputs, kernel_size, kernel_size)
    if kind == "noise":
        # The sum is divided by the number of points present: the mean of k^2 terms, scaled back by k^2.
        bound = (inputs * kernel_size**2) ** -0.5
        return torch.empty(shape).uniform_(-bound, bound)
    count = channels * inputs
    number = torch.arange(count)
    width = _NARROWEST * (_WIDEST / _NARROWEST) ** torch.rand(count)
    shifted = (number % 2 == 1)[:, None]
    centre = torch.where(shifted, torch.empty(count, 2).uniform_(-_FARTHEST, _FARTHEST), 0.0)
    taps = _gaussians(width, centre, kernel_size)
    surround = _gaussians(_SURROUND * width, centre, kernel_size)
    taps = torch.where((number % 4 == 2)[:, None, None], taps - surround, taps)
    return taps.view(shape) * inputs**-0.5


def _gaussians(width: Tensor, centre: Tensor, kernel_size: int) -> Tensor:
    """(N, k, k): Gaussians of widths (N,) about centres (N, 2), each summing to 1."""
    offset = torch.arange(kernel_size) - (kernel_size - 1) / 2
    distance = (offset[:, None] - centre[:, :1, None]) ** 2 + (offset - centre[:, 1:, None]) ** 2
    return (-0.5 * distance / width[:, None, None] ** 2).flatten(1).softmax(dim=1).unflatten(1, (kernel_size, -1))

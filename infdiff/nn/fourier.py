"""Rows of the discrete Fourier transform for a few low modes, as real matrices.

Cells sit at (i + 1/2) / n. Coefficients are those of the function: analysis divides sums over cells by n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from torch import Tensor

from infdiff.coordinates import cell_centres

_Matrix = Callable[[int, int, torch.device, torch.dtype], Tensor]


def _cached(make: _Matrix) -> _Matrix:
    """Cache per size, device and dtype, outside inference mode so that training can use it.

    Not cached under torch.compile: compiled graphs compute the matrix in place.
    """
    stored = lru_cache(maxsize=256)(torch.inference_mode(False)(make))

    @wraps(make)
    def matrix(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return (make if torch.compiler.is_compiling() else stored)(n, count, device, dtype)

    return matrix


def _angles(n: int, first: int, count: int, device: torch.device) -> Tensor:
    """(K, n) float64: phases at the cells' centres of waves with frequencies from `first` on."""
    frequencies = torch.arange(first, first + count, dtype=torch.float64, device=device)
    return 2 * math.pi * frequencies[:, None] * cell_centres(n, device=device)


@_cached
def real_analysis(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 M, n): a real signal -> real, then imaginary parts of its modes 0 .. M - 1."""
    angle = _angles(n, 0, count, device)
    return (torch.cat([angle.cos(), -angle.sin()]) / n).to(dtype)


@_cached
def real_synthesis(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(n, 2 M): the inverse. Modes above 0 stand for their conjugates, too; of mode 0 the real part alone counts."""
    angle = _angles(n, 0, count, device)
    both = torch.stack([angle.cos(), -angle.sin()])
    both[:, 1:] *= 2
    return both.flatten(0, 1).mT.contiguous().to(dtype)


@_cached
def complex_analysis(n: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 R, 2 n): a complex signal -> its modes -(R - 1) / 2 .. (R - 1) / 2, each number as real, imaginary."""
    angle = _angles(n, -(rows // 2), rows, device)
    cos, sin = angle.cos() / n, angle.sin() / n
    real, imaginary = torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)  # (R, n, 2)
    return torch.stack([real, imaginary], dim=1).flatten(2).flatten(0, 1).to(dtype)


@_cached
def complex_synthesis(n: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 n, 2 R): the inverse of `complex_analysis`."""
    return (n * complex_analysis(n, rows, device, torch.float64)).mT.contiguous().to(dtype)

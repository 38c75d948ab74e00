"""The rows of the discrete Fourier transform that a few low modes need, as real matrices.

Cells sit at (i + 1/2) / n; coefficients are those of the function: sums over cells are divided by n on the way there.
Each matrix is made once for a size, device and type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from torch import Tensor

from infdiff.coordinates import cell_centres

_Matrix = Callable[[int, int, torch.device, torch.dtype], Tensor]


def _kept(make: _Matrix) -> _Matrix:
    """Made once, and not as an inference tensor, which training could not use. Compiled graphs make it in place."""
    cached = lru_cache(maxsize=256)(torch.inference_mode(False)(make))

    @wraps(make)
    def matrix(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return (make if torch.compiler.is_compiling() else cached)(n, count, device, dtype)

    return matrix


def _angles(n: int, first: int, count: int, device: torch.device) -> Tensor:
    """(K, n) float64: the phase at each cell's centre of the waves with frequencies from `first` on."""
    frequencies = torch.arange(first, first + count, dtype=torch.float64, device=device)
    return 2 * math.pi * frequencies[:, None] * cell_centres(n, device=device)


@_kept
def real_analysis(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 M, n): a real signal -> real, then imaginary parts of its modes 0 .. M - 1."""
    angle = _angles(n, 0, count, device)
    return (torch.cat([angle.cos(), -angle.sin()]) / n).to(dtype)


@_kept
def real_synthesis(n: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(n, 2 M): the way back. Modes above 0 stand for their conjugates, too; of mode 0 the real part alone counts."""
    angle = _angles(n, 0, count, device)
    both = torch.stack([angle.cos(), -angle.sin()])
    both[:, 1:] *= 2
    return both.flatten(0, 1).mT.contiguous().to(dtype)


@_kept
def complex_analysis(n: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 R, 2 n): a complex signal -> its modes -(R - 1) / 2 .. (R - 1) / 2, each number as real, imaginary."""
    angle = _angles(n, -(rows // 2), rows, device)
    cos, sin = angle.cos() / n, angle.sin() / n
    real, imaginary = torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)  # (R, n, 2)
    return torch.stack([real, imaginary], dim=1).flatten(2).flatten(0, 1).to(dtype)


@_kept
def complex_synthesis(n: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 n, 2 R): the way back."""
    return (n * complex_analysis(n, rows, device, torch.float64)).mT.contiguous().to(dtype)

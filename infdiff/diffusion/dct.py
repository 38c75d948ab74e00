"""DCT-II by FFT, and filters that are diagonal in it: convolutions with half-sample symmetric boundaries."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.precision import without_autocast

# Transforms take ten times an image's memory on the way: large images are filtered one channel at a time.
_PIXELS_AT_ONCE = 1 << 24
# Up to this many pixels a side, products of matrices take less time on a CPU than transforms of float32.
_LARGEST_MATRIX = 256


def filter_image(x: Tensor, gain: Tensor) -> Tensor:
    """Multiply the DCT-II coefficients of images (..., H, W) by `gain` (H, W).

    The transforms run in float64 for float64 images and in float32 for all others; the result has x's dtype.
    """
    planes = max(1, _PIXELS_AT_ONCE // gain.numel())
    images = x.reshape(-1, *x.shape[-2:])
    if len(images) <= planes:
        return _filtered(x, gain)
    return torch.cat([_filtered(some, gain) for some in images.split(planes)]).view_as(x)


def _filtered(x: Tensor, gain: Tensor) -> Tensor:
    work = x if x.dtype == torch.float64 else x.float()
    if x.device.type == "cpu" and work.dtype == torch.float32 and max(gain.shape) <= _LARGEST_MATRIX:
        (to_rows, from_rows), (to_columns, from_columns) = (_matrices(n) for n in gain.shape)
        with without_autocast(x.device):
            modes = (to_rows.mT @ work @ to_columns) * gain.float()
            return (from_rows.mT @ modes @ from_columns).to(x.dtype)
    modes = _dct(_dct(work).mT).mT
    modes = modes * gain.to(work)
    return _inverse_dct(_inverse_dct(modes).mT).mT.contiguous().to(x.dtype)


@lru_cache(maxsize=16)
def _matrices(n: int) -> tuple[Tensor, Tensor]:
    """(n, n) float32 each: the transform of a line on a CPU, and its inverse, by which lines are multiplied."""
    with torch.inference_mode(False):
        lines = torch.eye(n, dtype=torch.float64)
        return _dct(lines).float(), _inverse_dct(lines).float()


def resample(x: Tensor, size: Size) -> Tensor:
    """The functions that images (..., H, W) sample, read at another size: the cosine series, cut or zero-padded.

    Exact where the coarser of both sizes resolves the function. The result has x's dtype.
    """
    images = x.reshape(-1, *x.shape[-2:])
    planes = max(1, _PIXELS_AT_ONCE // (max(size[0], x.shape[-2]) * max(size[1], x.shape[-1])))
    if len(images) > planes:
        return torch.cat([resample(some, size) for some in images.split(planes)]).view(*x.shape[:-2], *size)
    work = x if x.dtype == torch.float64 else x.float()
    for n in (size[1], size[0]):
        modes, m = _dct(work), work.shape[-1]
        modes = F.pad(modes, (0, n - m)) if n > m else modes[..., :n]
        work = _inverse_dct(modes * (n / m)).mT
    return work.contiguous().to(x.dtype)


def _dct(x: Tensor) -> Tensor:
    """X_k = sum_n x_n cos(pi k (n + 1/2) / N) along the last axis, from one FFT of length N (Makhoul 1980)."""
    v = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    turned: Tensor = torch.fft.fft(v) * _quarter_turns(x, -1)
    return turned.real


def _inverse_dct(modes: Tensor) -> Tensor:
    """The inverse of `_dct`. For real v the turned spectrum is X_k - i X_{N-k}, with X_N = 0."""
    n = modes.shape[-1]
    mirrored = torch.cat([torch.zeros_like(modes[..., :1]), modes[..., 1:].flip(-1)], dim=-1)
    v = torch.fft.ifft(torch.complex(modes, -mirrored) * _quarter_turns(modes, 1)).real
    x = torch.empty_like(modes)
    x[..., ::2] = v[..., : (n + 1) // 2]
    x[..., 1::2] = v[..., (n + 1) // 2 :].flip(-1)
    return x


def _quarter_turns(like: Tensor, sign: int) -> Tensor:
    n = like.shape[-1]
    angle = torch.arange(n, dtype=like.dtype, device=like.device) * (sign * math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)

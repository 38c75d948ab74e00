"""Convolutions by a few Fourier modes, and the dual convolution of DFU: those modes plus a few spatial taps.

A grid samples a function on the unit square at its cells' centres. Its low Fourier coefficients do not depend on the
number of cells (`norm="forward"`), so neither does the effect of a spectral convolution on the function.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from infdiff.coordinates import Size
from infdiff.nn.conv_block import conv
from infdiff.nn.fourier import complex_analysis, complex_synthesis, real_analysis, real_synthesis
from infdiff.precision import without_autocast


def spectral_conv(x: Tensor, weight: Tensor, size: Size | None = None, algorithm: str = "auto") -> Tensor:
    """The second term of DFU Eq. 1: multiply each low Fourier mode of x by a complex matrix over channels.

    x (B, C, H, W), real; weight (2 M - 1, M, C, D, 2), real and imaginary parts last, for the row frequencies
    -(M - 1) .. M - 1 and the column frequencies 0 .. M - 1 (those below 0 are their conjugates, as x is real).
    Returns (B, D, *size) in x's type; size is x's own unless given. Runs in float32 (also under autocast) or float64.

    Only frequencies below the Nyquist one of both grids are used: 2 |k| < n, since a grid of n cells cannot tell n / 2
    from -n / 2. All M of them fit into 2 M - 1 cells; on smaller grids the highest ones are left out, so that a
    function which the smaller grid resolves still goes to the same function.
    Raises ValueError for a weight of another shape, or an algorithm that is not auto, fft or matrices.
    """
    size = (x.shape[2], x.shape[3]) if size is None else size
    rows, columns = weight.shape[:2]
    if weight.dim() != 5 or rows != 2 * columns - 1 or weight.shape[2] != x.shape[1] or weight.shape[4] != 2:
        raise ValueError(f"weight {tuple(weight.shape)} for x {tuple(x.shape)}: want (2 M - 1, M, {x.shape[1]}, D, 2)")
    held = _held(weight, x, size)
    if algorithm == "auto":
        algorithm = _faster(min(*x.shape[2:], *size), held.shape[1])
    elif algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}: choose auto, {', '.join(ALGORITHMS)}")
    with without_autocast(x.device):
        work = torch.promote_types(x.dtype, torch.float32)
        held = held.to(work)
        return ALGORITHMS[algorithm](x.to(work), held, size).to(x.dtype)


def spectral_conv_fft(x: Tensor, weight: Tensor, size: Size) -> Tensor:
    """`spectral_conv` by fast Fourier transforms, for float32 or float64 and modes that both grids hold."""
    (height, width), high, count = x.shape[2:], weight.shape[0] // 2, weight.shape[1]
    spectrum = torch.fft.rfft2(x, norm="forward")[..., :count]
    modes = torch.cat([spectrum[:, :, height - high :], spectrum[:, :, : high + 1]], dim=2)  # (B, C, 2 M - 1, M)
    if size != (height, width):
        # The transform counts from the first cell's centre, which lies elsewhere on the other grid.
        down = torch.arange(-high, high + 1, device=x.device, dtype=x.dtype) * (1 / size[0] - 1 / height)
        across = torch.arange(count, device=x.device, dtype=x.dtype) * (1 / size[1] - 1 / width)
        angle = math.pi * (down[:, None] + across)
        modes = modes * torch.polar(torch.ones_like(angle), angle)
    mixed = _mix(torch.view_as_real(modes).permute(2, 3, 4, 0, 1), weight)  # (2 M - 1, M, 2, B, D)
    modes = torch.complex(mixed[:, :, 0], mixed[:, :, 1]).permute(2, 3, 0, 1)
    # Column 0 holds both k and -k. Libraries disagree on the inverse of a spectrum that is not that of a real function,
    # so only the part that is one goes in.
    first = modes[..., :1]
    modes = torch.cat([(first + first.flip(2).conj()) / 2, modes[..., 1:]], dim=-1)
    out = modes.new_zeros(*modes.shape[:2], size[0], size[1] // 2 + 1)
    out[:, :, : high + 1, :count] = modes[:, :, high:]
    out[:, :, size[0] - high :, :count] = modes[:, :, :high]
    return torch.fft.irfft2(out, s=size, norm="forward")


def spectral_conv_matrices(x: Tensor, weight: Tensor, size: Size) -> Tensor:
    """`spectral_conv` by products with the few rows of the Fourier matrices that matter; arguments as its FFT twin.

    Channels come last in every product: free of copies for x in channels-last memory.
    """
    (height, width), rows, count, like = x.shape[2:], weight.shape[0], weight.shape[1], (x.device, x.dtype)
    h = torch.matmul(real_analysis(width, count, *like), x.permute(0, 2, 3, 1))  # (B, H, 2 M, C)
    h = h.unflatten(2, (2, -1)).flatten(3).flatten(1, 2)  # (B, 2 H, M C)
    h = torch.matmul(complex_analysis(height, rows, *like), h)  # (B, 2 (2 M - 1), M C)
    modes = h.unflatten(1, (-1, 2)).unflatten(3, (count, -1)).permute(1, 3, 2, 0, 4)  # (2 M - 1, M, 2, B, C)
    h = _mix(modes, weight).permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)  # (B, 2 (2 M - 1), M D)
    h = torch.matmul(complex_synthesis(size[0], rows, *like), h)  # (B, 2 H, M D)
    h = h.unflatten(1, (-1, 2)).unflatten(3, (count, -1)).flatten(2, 3)  # (B, H, 2 M, D)
    return torch.matmul(real_synthesis(size[1], count, *like), h).permute(0, 3, 1, 2)


ALGORITHMS: dict[str, Callable[[Tensor, Tensor, Size], Tensor]] = {
    "fft": spectral_conv_fft,
    "matrices": spectral_conv_matrices,
}


def _faster(n: int, count: int) -> str:
    """Name the faster algorithm for grids of n cells a side (the smallest one) and `count` modes.

    Measured on one CPU core, channels last, 32 to 128 channels, forward and backward: the FFTs' time over the matrices'
    is, with 16 modes, 1.9 at n = 32, 2.6 at 96, 4.9 at 97, 6.3 at 1024; with 24 modes 1.4 at 48, 1.1 at 64, 1.5 at 96;
    with 32, 0.9 to 1.1 at 64, 80 and 96 and 1.1 at 128; with 64, 0.8 at 128 and 192, 1.1 at 256 and 2.0 at 1024.
    On CUDA the rule is arithmetic, not measured: matrices cost 8 M + 32 M^2 / n operations a cell and channel (213 at
    96 with 16 modes: the time of 15 bytes on an H200) and read the grid twice; FFTs do so several times.
    """
    return "matrices" if count <= 24 or 4 * count <= n else "fft"


def _held(weight: Tensor, x: Tensor, size: Size) -> Tensor:
    """The weights of the modes that both grids hold."""
    middle = weight.shape[0] // 2
    row, column = (min(weight.shape[1], (min(a, b) + 1) // 2) for a, b in zip(x.shape[2:], size, strict=True))
    return weight[middle - row + 1 : middle + row, :column]


def _mix(modes: Tensor, weight: Tensor) -> Tensor:
    """The complex product of channels, mode by mode: (R, M, 2, B, C) and (R, M, C, D, 2) -> (R, M, 2, B, D).

    One real product a mode, of real and imaginary parts with both parts of the weight where they lie.
    """
    rows, columns, _, batch, _ = modes.shape
    products = torch.bmm(modes.flatten(2, 3).flatten(0, 1), weight.flatten(3).flatten(0, 1))
    real, imaginary = products.view(rows, columns, 2, batch, -1, 2).unbind(2)
    return torch.stack([real[..., 0] - imaginary[..., 1], real[..., 1] + imaginary[..., 0]], dim=2)


class SpectralConv2d(nn.Module):
    """`spectral_conv` with learnt weights: (B, in_channels, H, W) -> (B, channels, H, W), or another size.

    modes: M, the number of frequencies an axis, with both signs. factor_rank: if not 0, the matrix W_k of each mode is
    U G_k V with G_k of this rank and U, V shared by all modes, for fewer parameters. gain: the factor by which a new
    layer scales the standard deviation of a function of these modes alone.
    """

    def __init__(self, in_channels: int, channels: int, modes: int, *, factor_rank: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        if modes < 1:
            raise ValueError(f"modes={modes}: a spectral convolution needs at least 1")
        self.modes = modes
        # U and V are the same for all modes, so they act on the cells: the transforms then see fewer channels.
        self.enter = nn.Conv2d(in_channels, factor_rank, 1, bias=False) if factor_rank else nn.Identity()
        self.leave = nn.Conv2d(factor_rank, channels, 1, bias=False) if factor_rank else nn.Identity()
        for factor in (self.enter, self.leave):
            if isinstance(factor, nn.Conv2d):
                nn.init.kaiming_normal_(factor.weight, nonlinearity="linear")
        self.in_channels, self.channels = factor_rank or in_channels, factor_rank or channels
        # Three axes: `Module.to(memory_format=...)` takes parameters of four or five for a convolution's taps.
        self.weight = nn.Parameter(torch.empty((2 * modes - 1) * modes, self.in_channels, 2 * self.channels))
        nn.init.normal_(self.weight, std=gain * (2 * self.in_channels) ** -0.5)
        with torch.no_grad():
            # Column frequency 0: half of its matrices' variance is in the part that real functions do not reach.
            self.weight[::modes] *= 2**0.5

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        weight = self.weight.view(2 * self.modes - 1, self.modes, self.in_channels, self.channels, 2)
        return self.leave(spectral_conv(self.enter(x), weight, size))


class DualConv(nn.Module):
    """DFU Eq. 1: k x k taps on neighbouring cells, never rescaled, plus a spectral convolution. (B, C, H, W), any size.

    modes: 0 for the taps alone. gain: a new layer's output has this standard deviation for input of variance 1 in the
    low modes; each term contributes half of the variance.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int = 3,
        modes: int,
        factor_rank: int = 0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: want an odd number of taps, so that one lies in the centre")
        each = gain * 0.5**0.5 if modes else gain
        self.spatial = conv(in_channels, channels, kernel_size, gain=each)
        self.spectral = (
            SpectralConv2d(in_channels, channels, modes, factor_rank=factor_rank, gain=each) if modes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.spatial(x)
        return out if self.spectral is None else out + self.spectral(x).to(out.dtype)

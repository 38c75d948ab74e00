"""The sum over the kernel's window on complete images: every pixel present, no index, zero outside.

Four algorithms compute sum_y kappa(y - c) v(y). At scale s and k x k taps, multiply-adds a pixel and channel:
- direct: kappa at every pixel offset, about ((k + 1) s)^2;
- dilated: if s is an integer, a tent filter along rows and columns, then the taps s pixels apart, 4 s + k^2;
- tents: for any s, for each row of taps, kappa along the row, then that row's tent along the column, 2 k s (k + 2);
- fourier: for any s, a product of spectra, at a cost that does not depend on s. Depthwise taps only.

Images are (B, H, W, C), channels last, as features at points are. For a part of a large image, `context` is the number
of rows above and below, and of columns left and right, that are input only (no output is computed there).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.grad import conv2d_weight

from infdiff.coordinates import Scale, Size
from infdiff.ops.resize_kernel import kernel_reach, resize_kernel, resize_kernel_adjoint, tent_matrix
from infdiff.ops.taps_gradient import convolves, taps_by_convolution

ALGORITHMS = ("direct", "dilated", "tents", "fourier")

Context = tuple[tuple[int, int], tuple[int, int]]
NO_CONTEXT: Context = ((0, 0), (0, 0))

# Measured on 2 CPU cores with 7 x 7 taps: up to this many pixels in the window, the direct sum beats the Fourier one,
_MAX_DIRECT_WINDOW = 625
# and up to this integer scale, the dilated one does.
_MAX_DILATED_SCALE = 64
# A tent along columns longer than this many pixels a side is filtered in two parts.
_LONG_TENT = 16
# The gradient to the taps is summed directly for windows up to this size, and through spectra for larger ones.
_MAX_DIRECT_GRADIENT_WINDOW = 49
# Pixels of the spectra that are in memory at once.
_SPECTRUM_PIXELS = 1 << 24


def window_of(kernel_size: int, scale: Scale) -> Size:
    """(Kh, Kw): the pixel offsets at which the kernel is not zero."""
    return 2 * kernel_reach(kernel_size, scale[0]) + 1, 2 * kernel_reach(kernel_size, scale[1]) + 1


def choose_algorithm(taps: Tensor, scale: Scale) -> str:
    """Name the cheapest algorithm for taps (C, 1, k, k) or (O, C, k, k)."""
    window = window_of(taps.shape[-1], scale)
    pixels = window[0] * window[1]
    integers = all(float(s).is_integer() for s in scale)
    if integers and 1 < max(scale) <= _MAX_DILATED_SCALE:
        return "dilated"
    if pixels <= _MAX_DIRECT_WINDOW:
        return "direct"
    return "fourier" if taps.shape[1] == 1 else "tents"


def dense_conv2d(
    image: Tensor, taps: Tensor, scale: Scale, algorithm: str | None = None, context: Context = NO_CONTEXT
) -> Tensor:
    """image (B, H, W, C), taps (C, 1, k, k) or (O, C, k, k) at the base resolution -> (B, H, W, C or O), in PyTorch.

    scale: pixels per base pixel for (rows, columns). algorithm: one of ALGORITHMS, by default the cheapest.
    context: rows and columns that are input only, by which the result is smaller. Differentiable.
    """
    algorithm = algorithm or choose_algorithm(taps, scale)
    # Algorithms that sum many pixels on the way do so in float32, and round once.
    dtype = image.dtype if algorithm == "direct" else torch.promote_types(image.dtype, torch.float32)
    taps = taps.to(torch.promote_types(taps.dtype, torch.float32))
    wide = image.to(dtype).permute(0, 3, 1, 2)
    if algorithm == "dilated":
        result = _dilated(wide, taps, scale, context)
    else:
        result = {"direct": _direct, "tents": _tents, "fourier": _fourier}[algorithm](wide, taps, scale)
        (above, below), (left, right) = context
        result = result[:, :, above : result.shape[2] - below, left : result.shape[3] - right]
    return result.permute(0, 2, 3, 1).to(image.dtype)


def dense_taps_gradient(image: Tensor, grad: Tensor, kernel_size: int, scale: Scale) -> Tensor:
    """The adjoint of `dense_conv2d` in depthwise taps: images (B, H, W, C) -> (C, 1, k, k)."""
    image, grad = image.permute(0, 3, 1, 2), grad.permute(0, 3, 1, 2)
    window = window_of(kernel_size, scale)
    reach = window[0] // 2, window[1] // 2
    channels = image.shape[1]
    if convolves(image, window):
        kappa = taps_by_convolution(image, grad, window)
    elif window[0] * window[1] <= _MAX_DIRECT_GRADIENT_WINDOW:
        shape = (channels, 1, *window)
        kappa = conv2d_weight(image, shape, grad, padding=reach, groups=channels)
    else:
        kappa = _correlation(image, grad, reach)
    return kappa if tuple(scale) == (1.0, 1.0) else resize_kernel_adjoint(kappa, kernel_size, *map(float, scale))


def _groups(image: Tensor, taps: Tensor) -> int:
    return image.shape[1] if taps.shape[1] == 1 else 1


def _direct(image: Tensor, taps: Tensor, scale: Scale) -> Tensor:
    kappa = resize_kernel(taps, scale).to(image.dtype)
    return F.conv2d(image, kappa, padding="same", groups=_groups(image, taps))


def _dilated(image: Tensor, taps: Tensor, scale: Scale, context: Context = NO_CONTEXT) -> Tensor:
    """tent(n / s) along rows and columns, then the taps s pixels apart.

    The dilated convolution runs as an ordinary one of each of the s^2 sub-lattices: libraries do that far faster than a
    dilated depthwise convolution of one large image.
    """
    batch = image.shape[0]
    size = [length - sum(outside) for length, outside in zip(image.shape[2:], context, strict=True)]
    steps = [round(s) for s in scale]
    half = taps.shape[-1] // 2
    padding = []
    for axis, (step, outside) in enumerate(zip(steps, context, strict=True)):
        # Of the half * step pixels past the result that the taps read, the filter fills those up to a step past the
        # image; the others are zero, which the convolution of the sub-lattices adds by itself.
        filled = min(half, max(-(-(c + step - 1) // step) for c in outside))
        past = filled * step + step - 1
        rest = -size[axis] % step
        image = _tent_filter(image, axis, step, (past - outside[0], past - outside[1] + rest))
        padding.append(half - filled)
    image = rearrange(image, "b c (h p) (w q) -> (b p q) h w c", p=steps[0], q=steps[1]).permute(0, 3, 1, 2)
    image = F.conv2d(image, taps, padding=padding, groups=_groups(image, taps))
    image = rearrange(image, "(b p q) c h w -> b (h p) (w q) c", b=batch, p=steps[0], q=steps[1])
    return image[:, : size[0], : size[1]].permute(0, 3, 1, 2)


def _tent_filter(image: Tensor, axis: int, step: int, pad: tuple[int, int]) -> Tensor:
    """tent(n / step) along rows (axis 0) or columns (1) of images (B, C, H, W), padded (or cropped) before and after.

    The result is the pixels whose complete window is there. A long filter along a column of pixels, far apart in
    memory, is split in two: the tent between its knots is the interpolant of its own values at every n-th pixel.
    """
    inner = max(n for n in range(1, math.isqrt(step) + 1) if step % n == 0) if axis == 0 and step > _LONG_TENT else step
    outer = step // inner
    even = max(0, min(pad))
    rest = [pad[0] - even, pad[1] - even]
    # The second part filters every inner-th row: those rows, side by side, are the rows of a wider image.
    rows = image.shape[2] + sum(pad) - 2 * (inner - 1)
    if outer > 1:
        rest[1] += -rows % inner
    if any(rest):
        image = F.pad(image, (0, 0, *rest) if axis == 0 else (*rest, 0, 0))
    image = _filter(image, axis, _tent(inner, image), even)
    if outer == 1:
        return image
    width = image.shape[3]
    folded = rearrange(image, "b c (h n) w -> b h (n w) c", n=inner).permute(0, 3, 1, 2)
    folded = _filter(folded, axis, _tent(outer, image), 0)
    return rearrange(folded, "b c h (n w) -> b (h n) w c", w=width).permute(0, 3, 1, 2)[
        :, :, : rows - 2 * (step - inner)
    ]


def _filter(image: Tensor, axis: int, weight: Tensor, pad: int) -> Tensor:
    shape, padding = [1, 1, 1, 1], [0, 0]
    shape[2 + axis], padding[axis] = -1, pad
    channels = image.shape[1]
    return F.conv2d(image, weight.view(shape).expand(channels, -1, -1, -1), padding=padding, groups=channels)


def _tent(step: int, like: Tensor) -> Tensor:
    return tent_matrix(1, float(step), dtype=like.dtype, device=like.device).view(-1)


def _tents(image: Tensor, taps: Tensor, scale: Scale) -> Tensor:
    """Sum over rows i of taps: kappa along the row, then tent(n / s - i') along the column."""
    tents, across = tents_and_rows(taps, scale)
    total: Tensor | None = None
    for i in range(taps.shape[-2]):
        term = F.conv2d(image, across[:, :, i : i + 1], padding="same", groups=_groups(image, taps))
        down = tents[:, i].view(1, 1, -1, 1).expand(term.shape[1], -1, -1, -1)
        term = F.conv2d(term, down, padding="same", groups=term.shape[1])
        total = term if total is None else total + term
    assert total is not None
    return total


def _fourier(image: Tensor, taps: Tensor, scale: Scale) -> Tensor:
    """A product of spectra, on an image padded so far that what wraps around meets only zeros.

    The kernel's spectrum needs no transform of its size: it is the taps between the spectra of the tents of one axis.
    """
    if taps.shape[1] != 1:
        raise ValueError("the Fourier algorithm is for depthwise taps (C, 1, k, k)")
    window = window_of(taps.shape[-1], scale)
    size = _padded(image.shape[2:], (window[0] // 2, window[1] // 2))
    down, across = (
        torch.fft.fft(
            _around_zero(tent_matrix(taps.shape[-1], s, dtype=image.dtype, device=image.device), n), dim=0
        ).conj()
        for s, n in zip(scale, size, strict=True)
    )
    across = across[: size[1] // 2 + 1]
    pieces = []
    for channels in _few_channels(image.shape[1], image.shape[0], size):
        kernel = down @ (taps[channels, 0].to(down.dtype) @ across.mT)
        spectrum = torch.fft.rfft2(image[:, channels], s=size).mul_(kernel)
        pieces.append(torch.fft.irfft2(spectrum, s=size)[:, :, : image.shape[2], : image.shape[3]])
    return torch.cat(pieces, dim=1)


def _correlation(image: Tensor, grad: Tensor, reach: Size) -> Tensor:
    """(C, 1, Kh, Kw): sum over batch and pixels c of grad(c) image(c + n), for offsets n up to `reach`."""
    size = _padded(image.shape[2:], reach)
    dtype = torch.promote_types(image.dtype, torch.float32)
    rows, columns = (torch.arange(-r, r + 1, device=image.device) % n for r, n in zip(reach, size, strict=True))
    pieces = []
    for channels in _few_channels(image.shape[1], image.shape[0], size):
        spectrum = torch.fft.rfft2(image[:, channels].to(dtype), s=size)
        spectrum = spectrum * torch.fft.rfft2(grad[:, channels].to(dtype), s=size).conj()
        pieces.append(torch.fft.irfft2(spectrum.sum(dim=0), s=size)[:, rows][:, :, columns])
    return torch.cat(pieces).unsqueeze(1).to(image.dtype)


def _padded(size: torch.Size, reach: Size) -> Size:
    """The next sizes that FFTs are fast at, from size + reach on; a kernel's offsets fit, too."""
    height, width = (_fast_length(max(n + r, 2 * r + 1)) for n, r in zip(size, reach, strict=True))
    return height, width


def _fast_length(n: int) -> int:
    """The smallest number from n on without a prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def _few_channels(channels: int, batch: int, size: Size) -> list[slice]:
    """Split the channels so that each piece's spectra stay under `_SPECTRUM_PIXELS`."""
    at_once = max(1, _SPECTRUM_PIXELS // (batch * size[0] * size[1]))
    return [slice(start, min(start + at_once, channels)) for start in range(0, channels, at_once)]


def _around_zero(tents: Tensor, n: int) -> Tensor:
    """(2 * reach + 1, k) -> (n, k): offset m at place m modulo n."""
    reach = tents.shape[0] // 2
    return F.pad(tents, (0, 0, 0, n - tents.shape[0])).roll(-reach, 0)


def tents_and_rows(taps: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """(Kh, k): every row's tent along the column; (..., k, Kw): kappa along each row of taps."""
    down = tent_matrix(taps.shape[-2], scale[0], dtype=taps.dtype, device=taps.device)
    across = tent_matrix(taps.shape[-1], scale[1], dtype=taps.dtype, device=taps.device)
    return down, taps @ across.mT

"""The host side of cuda/modulated_norm.cu, as `kernels` of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.ops.gpu import launch, layout

# Rows of one group of lanes, so that reading the coefficients counts little; and blocks of all images and of one, whose
# partial sums are added up. They depend on shapes alone, as in `layout`.
ROWS, _BLOCKS, _BLOCKS_OF_IMAGE = 16, 1024, 64
# With more channels a lane's part of a row would not fit its registers.
_MOST_VECTORS = 512
_SUMMED = 8  # as in cuda/modulated_norm.cu


def serves(x: Tensor, *coefficients: Tensor | None) -> bool:
    """True for features that the kernels take, with coefficients in no wider type than float32."""
    narrow = all(c is None or c.dtype in launch.SCALARS for c in coefficients)
    return launch.serves(x) and narrow and x.numel() > 0 and layout.vectors(x.shape[-1]) <= _MOST_VECTORS


def modulated_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    latent_scale: Tensor | None,
    epsilon: float,
    silu: bool,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Launch the kernel of `ops.modulated_norm` for x + added: (B, L, C) -> (B, L, C), and that sum, or x itself."""
    x, added = layout.aligned(x), None if added is None else layout.aligned(added)
    batch, count, channels = x.shape
    given = _Coefficients(x, weight, bias, modulation, latent_scale)
    out, total = torch.empty_like(x), None if added is None else torch.empty_like(x)
    length = ROWS * _at_once(channels)
    arguments = (x, added, *given.tensors, out, total, count, length, *given.strides, epsilon, int(silu))
    grid = (layout.ceil(count, length), batch, 1)
    launch.launch("modulated_norm.cu", "modulated_norm", given.defines, grid, arguments)
    return out, x if total is None else total


def modulated_norm_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    latent_scale: Tensor | None,
    epsilon: float,
    silu: bool,
    passed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to x, weight and bias (C,) float32, modulation and latent_scale: empty for those that are not there.

    passed: added to the gradient to x.
    """
    x, grad = layout.aligned(x), layout.aligned(grad.to(x.dtype))
    passed = None if passed is None else layout.aligned(passed.to(x.dtype))
    batch, count, channels = x.shape
    given = _Coefficients(x, weight, bias, modulation, latent_scale)
    to_x = torch.empty_like(x)
    to_weight, to_bias = (torch.empty(channels, device=x.device) for _ in range(2))
    to_modulation, to_latent = (
        x.new_empty(0) if t is None else torch.empty(t.shape, dtype=given.dtype, device=x.device)
        for t in (modulation, latent_scale)
    )
    blocks, length = blocks_of_backward(batch, count, channels)
    partial = torch.empty((batch, blocks, 2, channels), dtype=torch.float32, device=x.device)
    arguments = (grad, x, *given.tensors, passed, to_x, partial, count, length, *given.strides, epsilon, int(silu))
    launch.launch("modulated_norm.cu", "modulated_norm_backward", given.defines, (blocks, batch, 1), arguments)
    others = (to_modulation, to_latent, to_weight, to_bias)
    sums = (partial, *given.tensors, *others, batch, blocks, *given.strides)
    grid = (layout.ceil(channels, _SUMMED), 1, 1)
    launch.launch("modulated_norm.cu", "modulated_norm_sums", given.defines, grid, sums)
    like = [t if own is None else t.to(own.dtype) for t, own in zip(others, (modulation, latent_scale), strict=False)]
    return to_x, to_weight, to_bias, like[0], like[1]


def blocks_of_backward(batch: int, count: int, channels: int) -> tuple[int, int]:
    """(Blocks of an image, rows of a block)."""
    most = max(1, min(_BLOCKS // batch, _BLOCKS_OF_IMAGE))
    length = max(ROWS * _at_once(channels), layout.ceil(count, most))
    return layout.ceil(count, length), length


class _Coefficients:
    """Weight, bias, modulation and latent scale as the kernels read them; dtype: of the last two."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor, *condition: Tensor | None) -> None:
        dtypes = {t.dtype for t in condition if t is not None}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        rows = [None if t is None else _rows(t.to(self.dtype)) for t in condition]
        self.tensors = (weight.float().contiguous(), bias.float().contiguous(), *rows)
        self.strides = tuple(0 if t is None else t.stride(0) for t in rows)
        self.defines = layout.features_defines(x) | {"MODULATION": launch.SCALARS[self.dtype]}


def _rows(t: Tensor) -> Tensor:
    """The same (B, N) with neighbouring numbers side by side; rows may lie apart."""
    return t if t.stride(1) == 1 else t.contiguous()


# AT_ONCE of cuda/modulated_norm.cu.
def _at_once(channels: int) -> int:
    return launch.THREADS // min(launch.THREADS, 1 << (layout.vectors(channels) - 1).bit_length())

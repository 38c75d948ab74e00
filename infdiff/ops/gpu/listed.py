"""The host side of the kernels that go through neighbour lists (cuda/lists.cuh), as `kernels` of the others."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.gpu import launch, layout
from infdiff.ops.gpu.kernels import sum_chunks

# The layout of lists, as in cuda/lists.cuh.
STRETCH = 128
_MOST_POINTS = 1 << 24
# With more offsets the taps would not fit a block's memory.
MAX_OFFSETS = 191
# Lists that would need more memory than this are not made: convolutions search their neighbours then.
MAX_BYTES = 1 << 30

# As in cuda/listed_conv.cu.
_RUNS = 4
# Rows that one thread of cuda/scaled_rows.cu scales, at least.
_ROWS = 16


def shapes(images: int, points: int, window: Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the lists by point and by offset, for the points of `images` distinct images."""
    offsets = prod(window)
    stretches = layout.ceil(points, STRETCH)
    return (images, points, 2 + offsets + offsets % 2), (images, stretches, offsets, 1 + STRETCH)


def can_list(images: int, points: int, window: Size) -> bool:
    """True where lists are made: a function of shapes alone."""
    words = sum(prod(shape) for shape in shapes(images, points, window))
    return prod(window) <= MAX_OFFSETS and points <= _MOST_POINTS and 4 * words <= MAX_BYTES


def neighbour_lists(ids: Tensor, index: Tensor, size: Size, window: Size) -> tuple[Tensor, Tensor]:
    """Lists by point and by offset, int32, of points ids (B, L). index (B, H, W): the lattice index."""
    ids, stride = layout.images(ids)
    index, index_stride = layout.images(index)
    batch, count = ids.shape
    by_point, by_offset = (
        torch.empty(shape, dtype=torch.int32, device=ids.device) for shape in shapes(batch, count, window)
    )
    arguments = (ids, index, by_point, by_offset, count, *size, stride, index_stride)
    grid = (layout.ceil(count, STRETCH), batch, 1)
    launch.launch("neighbour_lists.cu", "neighbour_lists", _window(window), grid, arguments)
    return by_point, by_offset


def listed_conv(
    features: Tensor,
    kappa: Tensor,
    by_point: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """scale * sum over the neighbours + bias + added: (B, L, C) -> (B, L, C).

    kappa (C, Kh, Kw) of any floating type, rounded to the features'; scale (B or 1, L, 1) float32; bias (C,); added
    (B, L, C).
    """
    features = layout.aligned(features)
    batch, count, channels = features.shape
    by_point, list_stride = layout.images(by_point.expand(batch, -1, -1))
    scale, scale_stride = (None, 0) if scale is None else layout.images(scale.float())
    bias = None if bias is None else bias.float().contiguous()
    # A last tap of zero, for what fills lists up.
    weights = F.pad(kappa.flatten(1).mT, (0, 0, 0, 1)).to(features.dtype).contiguous()
    out = torch.empty_like(features)
    added = None if added is None else layout.aligned(added.to(features.dtype))
    arguments = (features, weights, by_point, scale, bias, added, out, count, list_stride, scale_stride)
    lanes = _lanes(channels)
    grid = (layout.ceil(count, _RUNS * launch.THREADS // lanes), batch, _parts(channels))
    defines = layout.features_defines(features) | _window((kappa.shape[1], kappa.shape[2]))
    launch.launch("listed_conv.cu", "listed_conv", defines, grid, arguments)
    return out


def scaled_rows(rows: Tensor, scale: Tensor, *, summed: bool) -> tuple[Tensor, Tensor | None]:
    """scale * rows, and with `summed` the sum of all rows: (B, L, C) -> (B, L, C) and (C,) float32.

    scale (B or 1, L, 1).
    """
    rows = layout.aligned(rows)
    batch, count, channels = rows.shape
    scale, scale_stride = layout.images(scale.float())
    blocks, length = pieces(count, channels)
    out = torch.empty_like(rows)
    partial = torch.empty((batch * blocks, channels), dtype=torch.float32, device=rows.device) if summed else None
    grid = (blocks, batch, layout.ceil(layout.vectors(channels), layout.lanes(channels)))
    arguments = (rows, scale, out, partial, count, length, scale_stride)
    launch.launch("scaled_rows.cu", "scaled_rows", layout.features_defines(rows), grid, arguments)
    return out, None if partial is None else sum_chunks(partial)


def pieces(count: int, channels: int) -> tuple[int, int]:
    """(Blocks of an image, rows of a block) of `scaled_rows`."""
    return layout.chunks(count, 1, least=_ROWS * launch.THREADS // layout.lanes(channels))


def listed_taps(features: Tensor, grad: Tensor, by_offset: Tensor, window: Size) -> Tensor:
    """Sum over points of grad at the point times features at its neighbour: (C, Kh, Kw) float32, from (B, L, C)."""
    features, grad = layout.aligned(features), layout.aligned(grad.to(features.dtype))
    batch, count, channels = features.shape
    by_offset, list_stride = layout.images(by_offset.expand(batch, -1, -1, -1))
    chunks, chunk_length = layout.chunks(batch * by_offset.shape[1], prod(window) * channels)
    partial = torch.empty((chunks, prod(window), channels), dtype=torch.float32, device=features.device)
    arguments = (features, grad, by_offset, partial, batch, count, chunk_length, list_stride)
    defines = layout.features_defines(features) | _window(window)
    launch.launch("listed_conv.cu", "listed_taps", defines, (chunks, _parts(channels), 1), arguments)
    return sum_chunks(partial).mT.reshape(channels, *window).contiguous()


def _window(window: Size) -> dict[str, int]:
    return {"WINDOW_HEIGHT": window[0], "WINDOW_WIDTH": window[1]}


# PART_LANES and the number of parts in cuda/listed_conv.cu.
def _lanes(channels: int) -> int:
    return min(layout.lanes(channels), 8 if channels % 8 == 0 else 32)


def _parts(channels: int) -> int:
    return layout.ceil(layout.vectors(channels), _lanes(channels))

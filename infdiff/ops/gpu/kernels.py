"""The host side of the CUDA kernels: shapes, strides and launch sizes. One function for each kernel of cuda/.

Features are float32, float16 or bfloat16 rows (B, L, C) on a CUDA device; what depends on the coordinates alone may
hold one image for the complete batch (a first size of 1, or a first stride of 0).
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.choice import COLUMNS
from infdiff.ops.gpu import launch, layout

# The longest side of a window whose pixels a point visits one by one.
MAX_WINDOW = 63

_RUN = 4
# Pixels of a block, as in cuda/lattice_index.cu.
_TILE = 1024


def lattice_index(ids: Tensor, size: Size) -> Tensor:
    """ids (B, L) ascending -> (B, H, W) int32, as `infdiff.ops.lattice_index`."""
    ids, stride = layout.images(ids)
    batch, count = ids.shape
    index = torch.empty((batch, *size), dtype=torch.int32, device=ids.device)
    arguments = (ids, index, count, prod(size), stride)
    launch.launch("lattice_index.cu", "lattice_index", {}, (layout.ceil(prod(size), _TILE), batch, 1), arguments)
    return index


def permuted_pixels(keys: Tensor, count: int, size: Size) -> Tensor:
    """keys (R, B, 1) int64 -> (B, count) int64, as `infdiff.ops.permuted_pixels`."""
    rounds, batch = keys.shape[:2]
    pixels = torch.empty((batch, count), dtype=torch.int64, device=keys.device)
    arguments = (keys.contiguous(), pixels, rounds, batch, count, *size)
    launch.launch("permuted_pixels.cu", "permuted_pixels", {}, (layout.blocks(count), batch, 1), arguments)
    return pixels


def inverse_count(
    ids: Tensor, index: Tensor, rows: Tensor, columns: Tensor, taps: int, size: Size, wide: bool
) -> Tensor:
    """taps / sum of chi at every point: (B, L), float64 or without `wide` float32.

    rows, columns: chi along each axis, odd lengths, float64.
    """
    ids, ids_stride = layout.images(ids)
    batch, count = ids.shape
    inverse = torch.empty((batch, count), dtype=torch.float64 if wide else torch.float32, device=ids.device)
    arguments = (
        *(ids, layout.images(index)[0], rows.contiguous(), columns.contiguous(), inverse, count, *size),
        *(len(rows), len(columns), ids_stride, taps),
    )
    launch.launch("inverse_count.cu", "inverse_count", {"WIDE": int(wide)}, (layout.blocks(count), batch, 1), arguments)
    return inverse


def nearest_points(ids: Tensor, index: Tensor | None, size: Size, grid: Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers (B, G*K, COLUMNS) int32, weights, shares (B, G*K) float32 and reaches (B, L) int32, as in `Neighbours`.

    index (B, H, W), None when every pixel is a point.
    """
    ids, ids_stride = layout.images(ids)
    batch, count = ids.shape
    cells = prod(grid)
    number = torch.empty((batch, cells, COLUMNS), dtype=torch.int32, device=ids.device)
    weight = torch.empty((batch, cells, COLUMNS), dtype=torch.float32, device=ids.device)
    share = torch.empty((batch, cells), dtype=torch.float32, device=ids.device)
    reach = torch.zeros((batch, count), dtype=torch.int32, device=ids.device)
    index = None if index is None else layout.images(index)[0]
    aspect = (size[0] * grid[0]) / (size[1] * grid[1])
    arguments = (index, ids, number, weight, share, reach, count, *size, *grid, ids_stride, aspect)
    launch.launch("nearest_points.cu", "nearest_points", {}, (layout.blocks(cells), batch, 1), arguments)
    return number, weight, share, reach


def sparse_conv(
    features: Tensor,
    kappa: Tensor,
    ids: Tensor,
    index: Tensor | None,
    inverse: Tensor,
    size: Size,
    *,
    bias: Tensor | None = None,
    transposed: bool = False,
) -> Tensor:
    """inverse * sum over the window + bias (C,), or its adjoint without one: (B, L, C) -> (B, L, C).

    kappa (C, Kh, Kw) of any floating type, rounded to the features'; index (B, H, W), (B*L, Kh*Kw) for a neighbour
    table, None when every pixel is a point; inverse (B or 1, L, 1) float32.
    """
    features = layout.aligned(features)
    batch, count, channels = features.shape
    defines = layout.features_defines(features) | _window(kappa, index)
    ids, ids_stride = layout.images(ids)
    index, index_stride = _index(index)
    inverse, inverse_stride = layout.images(inverse.float())
    out = torch.empty_like(features)
    weights = kappa.flatten(1).mT.to(features.dtype).contiguous()
    inputs = (features, weights, ids, index, inverse, *(() if transposed else (_floats(bias),)))
    arguments = (*inputs, out, count, *size, ids_stride, index_stride, inverse_stride)
    grid = (layout.ceil(count, launch.THREADS // layout.lanes(channels)), batch, 1)
    entry = "sparse_conv_transposed" if transposed else "sparse_conv"
    launch.launch("sparse_conv.cu", entry, defines, grid, arguments)
    return out


def sparse_conv_taps(
    features: Tensor, grad: Tensor, ids: Tensor, index: Tensor | None, inverse: Tensor, size: Size, window: Size
) -> Tensor:
    """The gradient to kappa: (C, Kh, Kw) float32. grad (B, L, C); other arguments as `sparse_conv`."""
    features, grad = layout.aligned(features), layout.aligned(grad.to(features.dtype))
    batch, count, channels = features.shape
    kappa = torch.empty((channels, *window), device=features.device)
    defines = layout.features_defines(features) | _window(kappa, index)
    ids, ids_stride = layout.images(ids)
    index, index_stride = _index(index)
    inverse, inverse_stride = layout.images(inverse.float())
    chunks, chunk_length = layout.chunks(batch * count, prod(window) * channels, least=64)
    partial = torch.empty((chunks, prod(window), channels), dtype=torch.float32, device=features.device)
    arguments = (
        *(features, grad, ids, index, inverse, partial, batch, count, *size),
        *(ids_stride, index_stride, inverse_stride, chunk_length),
    )
    tile = 64 if channels >= 64 else 32
    grid = (chunks, window[0] * layout.ceil(window[1], 8), layout.ceil(channels, tile))
    launch.launch("sparse_conv.cu", "sparse_conv_taps", defines, grid, arguments)
    return sum_chunks(partial).mT.reshape(channels, *window).contiguous()


def sum_chunks(partial: Tensor) -> Tensor:
    """The sum (...) of partial sums (N, ...) float32, in an order that depends on the shape alone."""
    total = torch.empty_like(partial[0])
    length = total.numel()
    grid = (layout.ceil(length, 32), 1, 1)
    launch.launch("sum_chunks.cu", "sum_chunks", {}, grid, (partial, total, len(partial), length))
    return total


def dense_conv(
    image: Tensor,
    taps: Tensor,
    *,
    step: Size = (1, 1),
    pad: Size | None = None,
    size: Size | None = None,
    before: Tensor | None = None,
    after: Tensor | None = None,
    bias: Tensor | None = None,
    turned: bool = False,
) -> Tensor:
    """Depthwise convolution of complete images (B, H, W, C) with taps (C, k, l), `step` pixels apart, zero outside.

    pad: how far the first tap lies above and left of a result, by default half the window. size: of the result, by
    default that of the image. before, after: factors (H*W) at each pixel, before and after. bias (C,) is added last.
    turned: taps turned by 180 degrees.
    """
    image = layout.aligned(image)
    batch, in_height, in_width, channels = image.shape
    height, width = size or (in_height, in_width)
    pad = pad or (taps.shape[1] // 2 * step[0], taps.shape[2] // 2 * step[1])
    out = torch.empty((batch, height, width, channels), dtype=image.dtype, device=image.device)
    weights = taps.flatten(1).mT.to(image.dtype).contiguous()
    factors = (None if f is None else f.float().contiguous() for f in (before, after))
    sizes = (in_height, in_width, height, width)
    arguments = (image, weights, *factors, _floats(bias), out, *sizes, *step, *pad, int(turned))
    runs = layout.ceil(width, _RUN * step[1]) * step[1]
    grid = (layout.blocks(layout.vectors(channels) * runs * height), batch, 1)
    defines = layout.features_defines(image) | {"WINDOW_HEIGHT": taps.shape[1], "WINDOW_WIDTH": taps.shape[2]}
    launch.launch("dense_conv.cu", "dense_conv", defines, grid, arguments)
    return out


def dense_filter(image: Tensor, weights: Tensor, *, pad: Size, size: Size, out: Tensor | None = None) -> Tensor:
    """The same weights (k, l) for every channel of images (B, H, W, C); adds to `out` if it is given. Else as above."""
    image = layout.aligned(image)
    batch, in_height, in_width, channels = image.shape
    result = torch.empty((batch, *size, channels), dtype=image.dtype, device=image.device) if out is None else out
    flat = weights.to(device=image.device, dtype=torch.float32).contiguous()
    arguments = (image, flat, result, in_height, in_width, *size, *pad, int(out is not None))
    grid = (layout.blocks(layout.vectors(channels) * layout.ceil(size[1], _RUN) * size[0]), batch, 1)
    defines = layout.features_defines(image) | {"WINDOW_HEIGHT": weights.shape[0], "WINDOW_WIDTH": weights.shape[1]}
    launch.launch("dense_conv.cu", "dense_filter", defines, grid, arguments)
    return result


def points_to_grid(
    features: Tensor, number: Tensor, weight: Tensor, share: Tensor, index: Tensor | None, size: Size, grid: Size
) -> Tensor:
    """Rows (B, L, C) -> rows (B, G*K, C). index (B, H, W), None when every pixel is a point."""
    features = layout.aligned(features)
    batch, count, channels = features.shape
    cells = prod(grid)
    number, stride = layout.images(number)
    weight, _ = layout.images(weight.float())
    share, share_stride = layout.images(share.float())
    index, index_stride = _index(index)
    out = torch.empty((batch, cells, channels), dtype=features.dtype, device=features.device)
    blocks = (layout.ceil(cells, launch.THREADS // layout.lanes(channels)), batch, 1)
    strides = (stride, share_stride, index_stride)
    arguments = (features, number, weight, share, index, out, count, *size, *grid, *strides)
    launch.launch("interpolation.cu", "points_to_grid", layout.features_defines(features), blocks, arguments)
    return out


def points_to_grid_transposed(
    grad: Tensor,
    number: Tensor,
    weight: Tensor,
    share: Tensor,
    ids: Tensor,
    reach: Tensor,
    size: Size,
    grid: Size,
) -> Tensor:
    """The adjoint of `points_to_grid`: rows (B, G*K, C) -> rows (B, L, C)."""
    grad = layout.aligned(grad)
    batch, _, channels = grad.shape
    count = ids.shape[1]
    number, stride = layout.images(number)
    weight, _ = layout.images(weight.float())
    share, share_stride = layout.images(share.float())
    ids, ids_stride = layout.images(ids)
    reach, reach_stride = layout.images(reach)
    out = torch.empty((batch, count, channels), dtype=grad.dtype, device=grad.device)
    strides = (stride, share_stride, ids_stride, reach_stride)
    arguments = (grad, number, weight, share, ids, reach, out, count, *size, *grid, *strides)
    blocks = (layout.ceil(count, launch.THREADS // layout.lanes(channels)), batch, 1)
    launch.launch("interpolation.cu", "points_to_grid_transposed", layout.features_defines(grad), blocks, arguments)
    return out


def grid_to_points(rows: Tensor, ids: Tensor, size: Size, grid: Size) -> Tensor:
    """Rows (B, G*K, C) of a grid -> rows (B, L, C)."""
    rows = layout.aligned(rows)
    batch, _, channels = rows.shape
    count = ids.shape[1]
    ids, ids_stride = layout.images(ids)
    out = torch.empty((batch, count, channels), dtype=rows.dtype, device=rows.device)
    blocks = (layout.ceil(count, launch.THREADS // layout.lanes(channels)), batch, 1)
    arguments = (rows, ids, out, count, *size, *grid, ids_stride)
    launch.launch("interpolation.cu", "grid_to_points", layout.features_defines(rows), blocks, arguments)
    return out


def grid_to_points_transposed(grad: Tensor, index: Tensor | None, size: Size, grid: Size) -> Tensor:
    """The adjoint of `grid_to_points`: rows (B, L, C) -> rows (B, G*K, C)."""
    grad = layout.aligned(grad)
    batch, count, channels = grad.shape
    index, index_stride = _index(index)
    out = torch.empty((batch, prod(grid), channels), dtype=grad.dtype, device=grad.device)
    blocks = (layout.ceil(prod(grid), launch.THREADS // layout.lanes(channels)), batch, 1)
    arguments = (grad, index, out, count, *size, *grid, index_stride)
    launch.launch("interpolation.cu", "grid_to_points_transposed", layout.features_defines(grad), blocks, arguments)
    return out


def _floats(numbers: Tensor | None) -> Tensor | None:
    return None if numbers is None else numbers.float().contiguous()


def _window(kappa: Tensor, index: Tensor | None) -> dict[str, int]:
    table = index is not None and index.dim() == 2
    return {"WINDOW_HEIGHT": kappa.shape[1], "WINDOW_WIDTH": kappa.shape[2], "NEIGHBOURS": int(table)}


def _index(index: Tensor | None) -> tuple[Tensor | None, int]:
    """The index image, or a table, and its stride from image to image."""
    if index is None or index.dim() == 2:
        return None if index is None else index.contiguous(), 0
    return layout.images(index)

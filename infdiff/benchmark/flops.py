"""FLOP of any call: matrix products, convolutions, attention, and our own operators, whose counts are given here.

Two for each multiply-add; none for what is done element by element, for FFTs, and for what depends on coordinates or
taps alone. Our operators count as they are defined, whatever route they take: a convolution of a part of the pixels
reads the points that its window holds on average, and borders are not subtracted, as PyTorch counts its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from infdiff.coordinates import Scale
from infdiff.cuda_graphs import force_eager
from infdiff.ops.choice import NEAREST
from infdiff.ops.dense_conv2d import window_of

Shape = Sequence[int]

# Cells that bilinear interpolation reads.
_CORNERS = 4
# Operators on coordinates or taps alone: they run once for a set of points, or on few numbers.
UNCOUNTED = (
    "permuted_pixels",
    "lattice_index",
    "neighbour_lists",
    "inverse_count",
    "nearest_points",
    "resize_kernel",
    "resize_kernel_adjoint",
    "modulated_norm",
    "modulated_norm_of_sum",
    "modulated_norm_backward",
)


def flop_of(call: Callable[[], object]) -> int:
    """FLOP of a call, which runs once, without compilation or CUDA graphs."""
    with torch.compiler.set_stance("force_eager"), force_eager(), flop_counter() as counter:
        call()
    return int(counter.get_total_flops())


def flop_counter() -> FlopCounterMode:
    """A context that counts FLOP; on the meta device, too."""
    return FlopCounterMode(display=False, custom_mapping=_mapping())


def convolution_multiply_adds(points: int, size: Shape, kernel_size: int, scale: Scale) -> float:
    """Multiply-adds of a depthwise convolution for each channel of each point.

    Where every pixel is a point, a window larger than the taps need not be visited pixel by pixel: then the cheapest of
    the algorithms in `ops/dense_conv2d.py` counts, but for the one with FFTs.
    """
    pixels = size[0] * size[1]
    direct = prod(window_of(kernel_size, scale))
    if points < pixels:
        return direct * points / pixels
    down, across = window_of(1, scale)
    tents = kernel_size * (window_of(kernel_size, scale)[1] + down)
    dilated = [down + across + kernel_size**2] if all(float(s).is_integer() for s in scale) else []
    return min(direct, tents, *dilated)


def _convolution(features: Shape, taps: Shape, ids: Shape, *others: Any, **named: Any) -> int:
    size, scale = others[:2]
    each = convolution_multiply_adds(ids[1], size, taps[-1], (scale[0], scale[1]))
    return round(2 * prod(features) * each)


def _convolution_backward(grad: Shape, features: Shape, taps: Shape, ids: Shape, *others: Any, **named: Any) -> int:
    to_features, to_taps = others[-4:-2]
    return (bool(to_features) + bool(to_taps)) * _convolution(features, taps, ids, *others)


def _points_to_grid(features: Shape, number: Shape, *others: Any, **named: Any) -> int:
    # Three points a cell; those that are equally near, or in one cell, are not counted.
    # Rows of numbers may be shared by the images of a batch; those of features and gradients are not.
    return 2 * NEAREST * features[0] * number[1] * features[2]


def _grid_to_points(rows: Shape, ids: Shape, *others: Any, **named: Any) -> int:
    return 2 * _CORNERS * prod(ids) * rows[2]


def _attention(query: Shape, key: Shape, value: Shape, *others: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *others: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


OPERATORS: dict[str, Callable[..., int]] = {
    "sparse_depthwise_conv2d": _convolution,
    "sparse_depthwise_conv2d_backward": _convolution_backward,
    "points_to_grid": _points_to_grid,
    "points_to_grid_adjoint": _points_to_grid,
    "grid_to_points": _grid_to_points,
    "grid_to_points_adjoint": _grid_to_points,
}


def _mapping() -> dict[Any, Callable[..., int]]:
    aten = torch.ops.aten
    return {getattr(torch.ops.infdiff, name): count for name, count in OPERATORS.items()} | {
        # PyTorch counts attention on CUDA devices alone.
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }

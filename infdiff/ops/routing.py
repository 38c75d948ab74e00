"""The route of an operator, and the reason for it: chosen by device, type and the measured density of points."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.gpu import kernels, launch

BACKENDS = ("auto", "lattice", "torchsparse", "dense")

# Measured on one CPU core, forward and backward, 32 and 64 channels, 3 x 3 to 15 x 15 taps: pairs of neighbours take a
# twentieth to a half of the time of masked dense convolution where one pixel in 16 is a point, and less of it where
# fewer are. `row_pairs.bisects` holds from here on.
DENSE_ABOVE_DENSITY = 1 / 20
# The same for regular taps, 32 channels, 3 x 3 and 7 x 7.
REGULAR_DENSE_ABOVE_DENSITY = 1 / 12

# The backend that takes TorchSparse's place at another scale than 1: for depthwise taps (True), and for regular ones.
ENLARGED_BACKEND = {True: "lattice", False: "dense"}
UNKNOWN_SCALE = "TorchSparse knows no kernels of another scale than 1"


class Route(NamedTuple):
    """The route that an operator takes.

    name: "kernels" (CUDA, for convolutions through the lattice index or a neighbour table), "dense kernels" (CUDA, on
    complete images), "lattice" (PyTorch, by pairs of neighbours, or tap by tap through either of them), "dense"
    (PyTorch, masked dense convolution), "torchsparse" (its own convolution) or "PyTorch" (operators that are not
    convolutions).
    """

    name: str
    why: str


def route_of(
    operator: str, tensor: Tensor, size: Size, kernel_size: int = 1, scale: Scale = (1.0, 1.0), backend: str = "auto"
) -> Route:
    """The route of an operator for its first argument: features (B, L, C), a grid, taps or ids (B, L)."""
    if operator == "sparse_depthwise_conv2d":
        return choose_route(tensor, size, kernel_size, scale, backend)
    if operator == "sparse_conv2d":
        return choose_regular_route(tensor.shape[1], size, scale, backend)
    if operator == "resize_kernel":
        return Route("PyTorch", "it is a product of three small matrices")
    if operator == "inverse_count" and tensor.shape[1] == size[0] * size[1]:
        return Route("PyTorch", "every pixel is a point: it is a product of one number for each row and column")
    if operator == "inverse_count" and max(window_of(kernel_size, scale)) > kernels.MAX_WINDOW:
        return Route("PyTorch", f"the enlarged kernel is wider than {kernels.MAX_WINDOW} pixels")
    if launch.serves(tensor) if tensor.is_floating_point() else launch.serves_points(tensor):
        return Route("kernels", "the tensors are on a CUDA device")
    if launch.serves_points(tensor):
        return Route("PyTorch", f"kernels do not take {tensor.dtype}")
    closed = launch.why_closed(tensor.device.index)
    return Route("PyTorch", f"kernels do not run: {closed or 'the tensors are not on a CUDA device'}")


def choose_route(features: Tensor, size: Size, kernel_size: int, scale: Scale, backend: str) -> Route:
    """The route of depthwise taps for features (B, L, C) of an image of `size`; `backend` is one of BACKENDS."""
    pixels = size[0] * size[1]
    density = features.shape[1] / pixels
    if launch.serves(features):
        if density == 1:
            return Route("dense kernels", "every pixel is a point")
        if backend == "dense":
            return Route("dense kernels", "asked for")
        if max(window_of(kernel_size, scale)) <= kernels.MAX_WINDOW:
            return Route("kernels", "the points' features are on a CUDA device")
        return Route("dense kernels", f"the enlarged kernel is wider than {kernels.MAX_WINDOW} pixels")
    if backend == "torchsparse":
        known = tuple(scale) == (1.0, 1.0)
        return Route(ENLARGED_BACKEND[True], "through TorchSparse's neighbour table" if known else UNKNOWN_SCALE)
    return _plain_route(density, DENSE_ABOVE_DENSITY, backend)


def choose_regular_route(points: int, size: Size, scale: Scale, backend: str) -> Route:
    """The route of regular, not depthwise, taps: PyTorch's, or "torchsparse" for its own convolution."""
    if backend == "torchsparse":
        known = tuple(scale) == (1.0, 1.0)
        return Route("torchsparse", "asked for") if known else Route(ENLARGED_BACKEND[False], UNKNOWN_SCALE)
    return _plain_route(points / (size[0] * size[1]), REGULAR_DENSE_ABOVE_DENSITY, backend)


def _plain_route(density: float, least: float, backend: str) -> Route:
    if backend != "auto":
        return Route(backend, "asked for")
    # Rounded, not formatted: torch.compile, which traces this, knows no format of numbers.
    part, bound = round(density, 4), round(least, 4)
    if density >= least:
        return Route("dense", f"{part} of the pixels are points, {bound} or more")
    return Route("lattice", f"{part} of the pixels are points, fewer than {bound}")

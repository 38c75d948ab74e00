"""Which way an operator takes, and why: by device, type and the measured density of points."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.dense_conv2d import Scale, window_of
from infdiff.ops.gpu import kernels, launch

BACKENDS = ("auto", "lattice", "torchsparse", "dense")

# Measured on 2 CPU cores, forward and backward: visiting the windows of the points costs about as much as masked dense
# convolution where between one pixel in 24 (64 channels, 3 x 3 taps) and one in 200 (32 channels, 7 x 7) is a point.
DENSE_ABOVE_DENSITY = 1 / 64
# The same for regular taps, 32 channels, 3 x 3 and 7 x 7.
REGULAR_DENSE_ABOVE_DENSITY = 1 / 12


class Route(NamedTuple):
    """The way that a convolution takes.

    name: "kernels" (CUDA, through the lattice index or a neighbour table), "dense kernels" (CUDA, on whole images),
    "lattice" (PyTorch, tap by tap through the lattice index) or "dense" (PyTorch, masked dense convolution).
    """

    name: str
    why: str


def choose_route(features: Tensor, size: Size, kernel_size: int, scale: Scale, backend: str) -> Route:
    """The route for features (B, L, C) of an image of `size`; `backend` is one of BACKENDS."""
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
    return _plain_route(density, DENSE_ABOVE_DENSITY, "lattice" if backend == "torchsparse" else backend)


def choose_regular_route(points: int, size: Size, scale: Scale, backend: str) -> Route:
    """The route for regular, not depthwise, taps: PyTorch's, or "torchsparse" for its own convolution."""
    if backend == "torchsparse" and tuple(scale) == (1.0, 1.0):
        return Route("torchsparse", "asked for")
    density = points / (size[0] * size[1])
    return _plain_route(density, REGULAR_DENSE_ABOVE_DENSITY, "dense" if backend == "torchsparse" else backend)


def _plain_route(density: float, least: float, backend: str) -> Route:
    if backend != "auto":
        return Route(backend, "asked for")
    # Rounded, not formatted: torch.compile, which traces this, knows no format of numbers.
    part, bound = round(density, 4), round(least, 4)
    if density >= least:
        return Route("dense", f"{part} of the pixels are points, {bound} or more")
    return Route("lattice", f"{part} of the pixels are points, fewer than {bound}")

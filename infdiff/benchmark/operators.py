"""Cases of the operators to time: the call, the bytes that it has to move, its backends and the route it takes.

Bytes are the fewest possible. Forward: what is read once and what is written once. Backward: the gradient, what is read
again (features and taps, where gradients depend on them) and the gradients written. Memory that the images of a batch
share counts once. Where every pixel is a point, ids and index need not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from infdiff import ops
from infdiff.ops import routing, torchsparse_backend
from infdiff.ops.dense_conv2d import choose_algorithm, window_of
from infdiff.ops.dense_kernels import choose_kernel_algorithm
from infdiff.points import draw_points

CONVOLUTIONS = ("sparse_depthwise_conv2d", "sparse_conv2d")
INTERPOLATIONS = ("points_to_grid", "grid_to_points")
OPERATORS = (*CONVOLUTIONS, *INTERPOLATIONS, "nearest_points", "lattice_index", "inverse_count", "resize_kernel")

# Visiting every window takes a CPU too long above this: features at points times pixels of the window.
_MOST_VISITS = 30_000_000


@dataclass(frozen=True)
class Case:
    """One operator at one setting, on square images and grids."""

    operator: str
    batch: int
    side: int  # pixels
    one_in: int  # one pixel in this many is a point
    channels: int = 0  # 0: no features
    kernel_size: int = 0  # 0: no kernel
    scale: float = 1.0  # pixels per base pixel
    grid: int = 0  # cells along a side; 0: no grid
    dtype: str = ""  # of the features or taps; empty: no such
    search: bool = False  # search for the nearest points, too

    @property
    def points(self) -> int:
        """L, in each image."""
        return max(1, self.side**2 // self.one_in)


class Plan(NamedTuple):
    """Values to sweep. While one is varied, the others stay at their first value."""

    batch: int
    sides: tuple[int, ...]
    one_in: tuple[int, ...]
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    base: int  # pixels along a side at scale 1, for enlarged kernels on all pixels of larger images
    enlarged_channels: int
    scales: tuple[float, ...]


_BFLOAT16_FIRST = ("bfloat16", "float32", "float16")
# Integers and other scales in turn, for images of 64 to 4096 pixels a side: the cost of a point should not jump.
_SCALES = (2.0, 2.5, 4.0, 4.5, 8.0, 7.5, 16.0, 15.5, 32.0, 31.5, 64.0, 62.5)
PLANS = {
    "cpu": Plan(4, (64, 128), (4, 1, 16, 64), (32, 64), (7, 3, 13), ("float32",), 64, 8, _SCALES),
    "cuda": Plan(32, (256,), (4, 1, 16), (64, 8, 65, 128), (7, 3, 13, 29), _BFLOAT16_FIRST, 64, 64, _SCALES),
}
QUICK_PLANS = {
    "cpu": Plan(2, (64,), (4,), (32,), (7,), ("float32",), 32, 8, (2.0, 4.5)),
    "cuda": Plan(32, (256,), (4,), (64,), (7,), ("bfloat16",), 64, 64, (2.0, 4.5)),
}


def cases_of(plan: Plan, only: str | None = None) -> list[Case]:
    """All cases of a plan, or those of one operator, each once."""
    found = [case for side in plan.sides for case in _at_scale_one(plan, side)]
    taps = Case("resize_kernel", 1, 1, 1, plan.channels[0], plan.kernel_sizes[0], dtype="float32")
    whole = replace(taps, operator=CONVOLUTIONS[0], channels=plan.enlarged_channels, dtype=plan.dtypes[0])
    for scale in plan.scales:
        found += [replace(taps, scale=scale), replace(whole, scale=scale, side=round(scale * plan.base))]
    return [
        case for name in OPERATORS for case in dict.fromkeys(found) if case.operator == name and only in (None, name)
    ]


def _at_scale_one(plan: Plan, side: int) -> Iterator[Case]:
    depthwise, regular = (
        Case(name, plan.batch, side, plan.one_in[0], plan.channels[0], plan.kernel_sizes[0], dtype=plan.dtypes[0])
        for name in CONVOLUTIONS
    )
    for one_in in plan.one_in:
        yield from (replace(depthwise, one_in=one_in, kernel_size=k) for k in plan.kernel_sizes)
        # Larger ones hold more in memory than a small device has.
        yield from (replace(regular, one_in=one_in, kernel_size=k) for k in plan.kernel_sizes if k <= 7)
        places = replace(depthwise, operator="lattice_index", one_in=one_in, channels=0, kernel_size=0, dtype="")
        yield places
        yield replace(places, operator="nearest_points", grid=side // 2)
        yield from (replace(places, operator="inverse_count", kernel_size=k) for k in plan.kernel_sizes)
    to_grid, from_grid = (replace(depthwise, operator=name, kernel_size=0, grid=side // 2) for name in INTERPOLATIONS)
    for case in (depthwise, to_grid, from_grid):
        yield from (replace(case, one_in=one_in) for one_in in plan.one_in)
        yield from (replace(case, channels=channels) for channels in plan.channels)
        yield from (replace(case, dtype=dtype) for dtype in plan.dtypes)
    yield from (replace(to_grid, one_in=one_in, search=True) for one_in in plan.one_in)


def backends_of(case: Case, device: torch.device) -> dict[str, str | None]:
    """The backends of a case's operator; for each, why it is left out, or None."""
    if case.operator not in CONVOLUTIONS:
        return {"auto": None}
    found: dict[str, str | None] = dict.fromkeys(routing.BACKENDS)
    found["torchsparse"] = torchsparse_backend.why_missing()
    if found["torchsparse"] is None and device.type == "cpu":
        found["torchsparse"] = "it runs on CUDA devices alone"
    elif found["torchsparse"] is None and case.scale != 1:
        found["torchsparse"] = "it knows no enlarged windows"
    window = prod(window_of(case.kernel_size, (case.scale, case.scale)))
    if device.type == "cpu" and case.batch * case.points * case.channels * window > _MOST_VISITS:
        found["lattice"] = f"it would visit more than {_MOST_VISITS // 10**6} million features: too slow on a CPU"
    return found


class Subject(NamedTuple):
    """An operator with its data."""

    call: Callable[..., Any]  # of `inputs`
    inputs: tuple[Tensor, ...]  # what gradients go to
    reads: tuple[Tensor, ...]  # forward, in addition to the inputs
    reads_again: tuple[Tensor, ...] | None  # backward, in addition to the gradient; None: not differentiable

    def passes(self) -> dict[str, tuple[Callable[[], object], int]]:
        """The call of each pass, and its bytes."""

        def forward() -> Any:
            with torch.no_grad():
                return self.call(*self.inputs)

        out = forward()
        count = _bytes(*self.inputs, *self.reads, *([out] if isinstance(out, Tensor) else out))
        found: dict[str, tuple[Callable[[], object], int]] = {"forward": (forward, count)}
        if self.reads_again is not None:
            leaves = [tensor.detach().requires_grad_() for tensor in self.inputs]
            grad = torch.randn_like(out)
            count += _bytes(grad, *self.reads_again, *self.inputs)
            found["forward+backward"] = (lambda: torch.autograd.grad(self.call(*leaves), leaves, grad), count)
        return found


def prepare(case: Case, backend: str, device: torch.device, seed: int) -> tuple[Subject, str]:
    """A case's operator on random data, and its route. What depends on coordinates alone is computed here, untimed."""
    generator = torch.Generator(device).manual_seed(seed)
    k, size, cells, scale = case.kernel_size, (case.side,) * 2, (case.grid,) * 2, (case.scale,) * 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(getattr(torch, case.dtype))

    if case.operator == "resize_kernel":
        taps = normal(case.channels, 1, k, k)
        return Subject(lambda t: ops.resize_kernel(t, scale), (taps,), (), ()), "PyTorch"
    ids = draw_points(case.batch, case.points, size, generator)
    index = ops.lattice_index(ids, size)
    where = () if case.one_in == 1 else (ids, index)
    if not case.dtype:
        calls: dict[str, Callable[[], Any]] = {
            "lattice_index": lambda: ops.lattice_index(ids, size),
            "inverse_count": lambda: ops.inverse_count(ids, size, k, scale, index),
            "nearest_points": lambda: ops.nearest_points(ids, size, cells, index)[:4],
        }
        reads = (ids,) if case.operator == "lattice_index" else where
        return Subject(calls[case.operator], (), reads, None), routing.route_of(case.operator, ids, size, k).name
    features = normal(*ids.shape, case.channels)
    route = routing.route_of(case.operator, features, size, k, scale, backend).name
    if case.operator == "grid_to_points":
        grid = normal(case.batch, prod(cells), case.channels).unflatten(1, cells).permute(0, 3, 1, 2)
        return Subject(lambda g: ops.grid_to_points(g, ids, size, index), (grid,), where[:1], where[1:]), route
    if case.operator == "points_to_grid":
        near = ops.nearest_points(ids, size, cells, index)
        if not case.search:
            return Subject(lambda f: ops.points_to_grid(f, near), (features,), near[:3], near[:3]), route

        def search_and_read(f: Tensor) -> Tensor:
            return ops.points_to_grid(f, ops.nearest_points(ids, size, cells, index))

        return Subject(search_and_read, (features,), (*where, *near[:3]), near[:3]), route
    taps = normal(case.channels, 1 if case.operator == "sparse_depthwise_conv2d" else case.channels, k, k)
    if route.startswith("dense"):
        algorithm = choose_algorithm(taps, scale) if route == "dense" else choose_kernel_algorithm(taps, scale)
        route = route if algorithm == "direct" else f"{route}/{algorithm}"
    points = ops.Points(ids, size, scale, index, ops.inverse_count(ids, size, k, scale, index))
    reads = (*where, points.inverse_count)
    return Subject(_convolution(case, backend, points), (features, taps), reads, (features, taps, *reads)), route


def _convolution(case: Case, backend: str, points: ops.Points) -> Callable[[Tensor, Tensor], Tensor]:
    """A convolution of features and taps, with everything else precomputed."""
    voxels = ops.Voxels.of(points.ids, points.size) if backend == "torchsparse" else None
    if case.operator == "sparse_conv2d":
        return lambda f, t: ops.sparse_conv2d(f, t, points, backend, voxels)
    if voxels is not None:
        points = points._replace(index=ops.neighbour_table(voxels, case.kernel_size))
    elif case.one_in > 1:
        points = points.listed(case.kernel_size)
    return lambda f, t: ops.sparse_depthwise_conv2d(f, t, points, backend)


def _bytes(*tensors: Tensor) -> int:
    sizes = ([n for n, step in zip(t.shape, t.stride(), strict=True) if step != 0] for t in tensors)
    return sum(prod(size) * t.element_size() for size, t in zip(sizes, tensors, strict=True))

"""Operators as PyTorch sees them: opcheck, torch.compile without a break, autocast."""

import inspect
import subprocess
import sys

import pytest
import torch

from infdiff import ops
from infdiff.points import all_points, draw_points

SIZE, GRID = (8, 9), (4, 5)


def arguments(count, dtype=torch.float32):
    """ids, points and neighbours of a few pixels."""
    ids = all_points(2, SIZE) if count == "all" else draw_points(2, count, SIZE, torch.Generator().manual_seed(0))
    return ids, ops.Points.of(ids, SIZE, 3, dtype=dtype), ops.nearest_points(ids, SIZE, GRID)


def samples(count):
    """(operator, arguments) of every operator that is registered."""
    ids, points, near = arguments(count)
    index = ops.lattice_index(ids, SIZE)
    features = torch.randn(2, ids.shape[1], 4, requires_grad=True)
    taps = torch.randn(4, 1, 3, 3, requires_grad=True)
    rows, numbers = torch.randn(2, 20, 4, requires_grad=True), near[:6]
    conv = (*points, "auto")
    grad = torch.randn(2, ids.shape[1], 4)
    sizes = ([*SIZE], [*GRID])
    scales = (torch.randn(2, 8, requires_grad=True), torch.randn(2, 4, requires_grad=True))
    norm = (features, torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True), *scales, True)
    return {
        "lattice_index": (ids, *SIZE),
        "neighbour_lists": (ids, index, *SIZE, 3, 5),
        "permuted_pixels": (torch.randint(0, 2**32, (8, 2, 1)), 10, *SIZE, count == "all"),
        "inverse_count": (ids, index, *SIZE, 3, 1.5, 2.0, False),
        "nearest_points": (ids, index, *SIZE, *GRID),
        "resize_kernel": (taps, 1.5, 2.0),
        "resize_kernel_adjoint": (torch.randn(4, 1, 5, 7), 3, 1.5, 2.0),
        "sparse_depthwise_conv2d": (features, taps, *conv, torch.randn(4, requires_grad=True)),
        "sparse_depthwise_conv2d_backward": (grad, features.detach(), taps.detach(), *conv, True, True, True, grad),
        "modulated_norm": norm,
        "modulated_norm_of_sum": (features, torch.randn(2, ids.shape[1], 4), *norm[1:]),
        "modulated_norm_backward": (grad, *(a.detach() for a in norm[:-1]), True, grad),
        "points_to_grid": (features, *numbers, *sizes),
        "points_to_grid_adjoint": (torch.randn(2, 20, 4), *numbers, *sizes),
        "grid_to_points": (rows, ids, index, *sizes),
        "grid_to_points_adjoint": (grad, ids, index, *sizes),
    }


NAMES = sorted(samples(10))


@pytest.mark.parametrize("name", [name for name in ops.__all__ if f"{name}_ref" in ops.__all__])
def test_an_operator_and_its_specification_share_their_signature(name):
    assert inspect.signature(getattr(ops, name)) == inspect.signature(getattr(ops, f"{name}_ref"))


def test_every_operator_is_checked():
    registered = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("infdiff::")
    }
    assert registered == set(NAMES)


@pytest.mark.parametrize("count", [10, "all"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, count):
    torch.library.opcheck(getattr(torch.ops.infdiff, name).default, samples(count)[name])


@pytest.mark.parametrize("count", [10, "all"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_the_kernels(name, count, emulated):
    # What follows the end of a list is never written, and differs from call to call.
    checks = {"test_utils": "test_schema"} if name == "neighbour_lists" else {}
    torch.library.opcheck(getattr(torch.ops.infdiff, name).default, samples(count)[name], **checks)


def through_everything(features, taps, regular, ids):
    points = ops.Points.of(ids, SIZE, 3, (2.0, 1.5))
    mixed = ops.sparse_depthwise_conv2d(features, taps, points)
    mixed = ops.sparse_conv2d(mixed, regular, ops.Points.of(ids, SIZE, 3))
    near = ops.nearest_points(ids, SIZE, GRID, points.index)
    image = ops.points_to_grid(mixed, near)
    kernel = ops.resize_kernel(taps, (1.5, 2.0)).sum()
    return ops.grid_to_points(image, ids, SIZE, points.index) * kernel


@pytest.mark.parametrize("count", [20, "all"])
def test_compiled_in_one_graph(count):
    ids, *_ = arguments(count)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((2, ids.shape[1], 4), (4, 1, 3, 3), (4, 4, 3, 3))]
    eager = through_everything(*inputs, ids)
    compiled = torch.compile(through_everything, fullgraph=True, backend="aot_eager")(*inputs, ids)
    torch.testing.assert_close(compiled, eager)
    wanted = torch.autograd.grad(eager.square().sum(), inputs)
    for a, b in zip(torch.autograd.grad(compiled.square().sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_inductor_takes_the_gradients_of_the_kernels(emulated):
    # It checks that gradients lie in memory as the operator promises.
    _, points, _ = arguments(20)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((2, 20, 4), (4, 1, 3, 3))]

    def loss(features, taps):
        return (taps.square() * ops.sparse_depthwise_conv2d(features, 2 * taps, points).sum()).sum()

    wanted = torch.autograd.grad(loss(*inputs), inputs)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*inputs), inputs)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (4.0, 4.0), (4.5, 4.5)])
@pytest.mark.parametrize("backend", ["lattice", "dense"])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_types_are_rounded_once(dtype, rounding, backend, scale):
    ids = all_points(1, (16, 16))
    features, taps = torch.rand(1, 256, 4).to(dtype), torch.rand(4, 1, 7, 7).to(dtype)
    points = ops.Points.of(ids, (16, 16), 7, scale)
    out = ops.sparse_depthwise_conv2d(features, taps, points, backend)
    exact = ops.sparse_depthwise_conv2d_ref(features.double(), taps.double(), points)
    # All terms are positive, so sums lose nothing: the result is as exact as its type, but for the product with the
    # normaliser and taps that are resized.
    assert ((out - exact) / exact).abs().max() < 2 * rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    ids, points, near = arguments(20)
    features, taps = torch.randn(2, 20, 4, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    grid = torch.randn(2, 4, *GRID)
    with torch.autocast("cpu", dtype=dtype):
        outputs = [
            ops.sparse_depthwise_conv2d(features, taps, points),
            ops.sparse_conv2d(features, torch.randn(5, 4, 3, 3), points),
            ops.points_to_grid(features, near),
            ops.grid_to_points(grid, ids, SIZE),
        ]
        assert ops.resize_kernel(taps, (2.0, 2.0)).dtype == torch.float32
        assert ops.sparse_depthwise_conv2d(features.double(), taps.double(), points).dtype == torch.float64
    assert [out.dtype for out in outputs] == [dtype] * 4
    # Sums are in float32: rounding the inputs and the result is all that autocast changes.
    reference = ops.sparse_depthwise_conv2d_ref(features.to(dtype).double(), taps.to(dtype).double(), points)
    error = (outputs[0].double() - reference).abs().max() / reference.abs().max()
    assert error < {torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    grads = torch.autograd.grad(outputs[0].float().sum(), (features, taps))
    assert [g.dtype for g in grads] == [torch.float32] * 2


def test_operators_load_no_compiler():
    script = """
import sys, torch
from infdiff import ops
from infdiff.points import all_points
points = ops.Points.of(all_points(1, (8, 8)), (8, 8), 3)
ops.sparse_depthwise_conv2d(torch.ones(1, 64, 2), torch.ones(2, 1, 3, 3), points)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

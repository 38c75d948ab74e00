"""What only a GPU can show: CUDA graphs, other streams and devices, no wait for the host, checks on the device."""

import subprocess
import sys
import threading

import pytest
import torch

from infdiff import ops
from infdiff.points import draw_points

pytestmark = pytest.mark.gpu
SIZE, GRID = (64, 64), (32, 32)


def inputs(device="cuda"):
    ids = draw_points(2, 1024, SIZE, torch.Generator(device).manual_seed(0))
    generator = torch.Generator(device).manual_seed(1)
    features = torch.randn(2, 1024, 64, device=device, generator=generator, requires_grad=True)
    taps = torch.randn(64, 1, 7, 7, device=device, generator=generator, requires_grad=True)
    return features, taps, ids


def step(features, taps, ids):
    """Every operator, forward and backward."""
    points = ops.Points.of(ids, SIZE, 7)
    mixed = ops.sparse_depthwise_conv2d(features, taps, points)
    image = ops.points_to_grid(mixed, ops.nearest_points(ids, SIZE, GRID, points.index))
    out = ops.grid_to_points(image, ids, SIZE, points.index)
    scale = taps.flatten(1)[:, 0]
    out = ops.modulated_norm(out, scale, scale, features[:, :2].flatten(1), features[:, 2], True)
    return torch.autograd.grad(out.square().sum(), (features, taps))


def test_in_a_cuda_graph():
    arguments = inputs()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        expected = [g.clone() for g in step(*arguments)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step(*arguments)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(results, expected, strict=True):
        assert torch.equal(a, b)


def test_on_another_stream():
    arguments = inputs()
    expected = step(*arguments)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        results = step(*arguments)
    side.synchronize()
    for a, b in zip(results, expected, strict=True):
        assert torch.equal(a, b)


def test_from_a_thread_whose_first_call_of_cuda_is_a_launch():
    ids = inputs()[2]
    expected, found = ops.lattice_index(ids, SIZE), []
    thread = threading.Thread(target=lambda: found.append(ops.lattice_index(ids, SIZE)))
    thread.start()
    thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_on_a_device_that_is_not_the_current_one():
    expected = step(*inputs("cuda:0"))
    results = step(*(t.detach().to("cuda:1").requires_grad_(t.is_floating_point()) for t in inputs("cuda:0")))
    for a, b in zip(results, expected, strict=True):
        assert a.device.index == 1
        assert torch.equal(a.cpu(), b.cpu())


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits_for_the_host():
    arguments = inputs()
    step(*arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    features, taps, ids = inputs()
    with torch.autocast("cuda", dtype=dtype):
        assert ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, SIZE, 7)).dtype == dtype


def test_float64_goes_to_the_reference():
    features, taps, ids = inputs()
    points = ops.Points.of(ids, SIZE, 7, dtype=torch.float64)
    out = ops.sparse_depthwise_conv2d(features.double(), taps.double(), points)
    expected = ops.sparse_depthwise_conv2d_ref(features.double(), taps.double(), points)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


# It suggests TF32 as soon as there is a product of matrices in float32.
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
def test_compiled_by_inductor():
    features, taps, ids = inputs()
    points = ops.Points.of(ids, SIZE, 7)
    near = ops.nearest_points(ids, SIZE, GRID, points.index)

    def forward(features, taps):
        image = ops.points_to_grid(ops.sparse_depthwise_conv2d(features, taps, points), near)
        return ops.grid_to_points(image, ids, SIZE, points.index)

    expected, found = forward(features, taps), torch.compile(forward, fullgraph=True)(features, taps)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), (features, taps))
    for a, b in zip(torch.autograd.grad(found.square().sum(), (features, taps)), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_bad_ids_are_reported_by_the_device():
    # In a process of its own: a failed check ends the CUDA context.
    program = (
        "import torch; from infdiff import ops\n"
        "ops.lattice_index(torch.tensor([[3, 1]], device='cuda'), (2, 2)); torch.cuda.synchronize()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode != 0
    assert "ids must ascend" in result.stderr + result.stdout

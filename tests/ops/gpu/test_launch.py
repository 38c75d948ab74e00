"""The door to compiled code: open or closed with a reason."""

import pytest
import torch

from infdiff import ops
from infdiff.ops.gpu import launch
from infdiff.ops.routing import choose_route
from infdiff.points import draw_points


def test_the_door_can_be_closed(monkeypatch):
    monkeypatch.setattr(launch, "_what_is_missing", lambda: None)
    monkeypatch.delenv("INFDIFF_KERNELS", raising=False)
    assert launch.why_closed() is None
    for word in ("off", "OFF", "0"):
        monkeypatch.setenv("INFDIFF_KERNELS", word)
        assert launch.why_closed() == "they are switched off by INFDIFF_KERNELS=off"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_a_device_the_door_is_closed():
    assert launch.why_closed() == "PyTorch sees no CUDA device"


def test_arguments_are_passed_as_the_kernel_declares_them():
    tensor = torch.zeros(3)
    pointer, null, number, large, real = launch.c_values(
        ("pointer", "pointer", "int", "int64", "double"), (tensor, None, 3, 1 << 40, 0.5)
    )
    assert (pointer, null) == (tensor.data_ptr(), 0)
    assert (number.value, large.value, real.value) == (3, 1 << 40, 0.5)
    with pytest.raises(TypeError, match="int"):
        launch.c_values(("int",), (tensor,))
    with pytest.raises(ValueError, match="argument"):
        launch.c_values(("int",), (1, 2))


def test_routes_follow_device_density_and_wish(emulated, monkeypatch):
    size = (64, 64)

    def route(count, *, scale=(1.0, 1.0), backend="auto", dtype=torch.float32):
        return choose_route(torch.zeros(1, count, 4, dtype=dtype), size, 7, scale, backend).name

    assert route(1024) == "kernels"
    assert route(4096) == "dense kernels"
    assert route(1024, backend="dense") == "dense kernels"
    assert route(1024, scale=(20.0, 20.0)) == "dense kernels"
    assert route(1024, dtype=torch.float64) == "dense"
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    assert route(1024) == route(4096) == "dense"
    assert route(16) == "lattice"
    assert route(1024, backend="lattice") == "lattice"


def test_closed_and_open_doors_give_the_same(emulated, monkeypatch):
    size = (16, 20)
    ids = draw_points(2, 80, size, torch.Generator().manual_seed(0))
    features, taps = torch.randn(2, 80, 8), torch.randn(8, 1, 7, 7)
    with_kernels = ops.sparse_depthwise_conv2d(features, taps, ids, size)
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    torch.testing.assert_close(
        ops.sparse_depthwise_conv2d(features, taps, ids, size), with_kernels, rtol=1e-4, atol=1e-4
    )

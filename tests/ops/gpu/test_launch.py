"""The door to compiled code: open or closed with a reason."""

import pytest
import torch

from infdiff import ops
from infdiff.ops.gpu import launch
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


def test_closed_and_open_doors_give_the_same(emulated, monkeypatch):
    size = (16, 20)
    ids = draw_points(2, 80, size, torch.Generator().manual_seed(0))
    features, taps = torch.randn(2, 80, 8), torch.randn(8, 1, 7, 7)
    points = ops.Points.of(ids, size, 7)
    with_kernels = ops.sparse_depthwise_conv2d(features, taps, points)
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    without = ops.sparse_depthwise_conv2d(features, taps, points)
    torch.testing.assert_close(without, with_kernels, rtol=1e-4, atol=1e-4)

"""Blocks on points."""

import pytest
import torch

from infdiff import ops
from infdiff.nn.geometry import Geometry
from infdiff.nn.sparse_block import SparseBlock, by_rows
from infdiff.points import draw_points


@pytest.mark.parametrize("max_rows", [1, 14, 1000])
def test_functions_of_single_points_are_applied_slice_by_slice(max_rows, generator):
    a, b = (torch.randn(2, 50, 3, generator=generator) for _ in range(2))
    seen = []

    def function(a, b):
        seen.append(a.shape[1])
        return torch.cat([a * b, a], dim=2)

    expected, out = torch.cat([a * b, a], dim=2), torch.empty(2, 50, 6)
    with torch.no_grad():
        assert torch.equal(by_rows(function, a, b, max_rows=max_rows), expected)
        assert by_rows(function, a, b, out=out, max_rows=max_rows) is out
    assert torch.equal(out, expected)
    assert max(seen) == min(50, max(1, max_rows // 2))


def test_training_applies_them_to_all_points_at_once():
    seen = []
    by_rows(lambda x: seen.append(x.shape) or x, torch.zeros(1, 50, 3), max_rows=7)
    assert seen == [(1, 50, 3)]


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_nonlinear_kernel_is_convolution_activation_convolution(depthwise, generator):
    """∞-Diff Table 2 (Eq. 13), written out with the operators' specifications; the linear one has one convolution."""
    size = (12, 10)
    ids = draw_points(2, 40, size, generator)
    geometry = Geometry.of(ids, size, base=size, kernel_size=3, grid=(4, 4))
    x = torch.randn(2, 40, 4, generator=generator)
    blocks = {
        nonlinear: SparseBlock(4, 3, mlp_ratio=2, condition_dim=0, depthwise=depthwise, nonlinear=nonlinear)
        for nonlinear in (False, True)
    }
    reference = ops.sparse_depthwise_conv2d_ref if depthwise else ops.sparse_conv2d_ref
    for nonlinear, block in blocks.items():
        for name, parameter in block.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, generator=generator)
        convolved = reference(x, block.conv.taps, geometry.points) + block.conv.bias
        if nonlinear:
            active = convolved * convolved.sigmoid()
            convolved = reference(active, block.conv_after.taps, geometry.points) + block.conv_after.bias
        expected = block.mixed(x, convolved, None)
        torch.testing.assert_close(block(x, geometry, None), expected, rtol=1e-4, atol=1e-5)
    assert blocks[False].conv_after is None


def test_other_devices_than_a_cpu_take_many_rows_at_once(monkeypatch):
    seen, x = [], torch.randn(2, 50, 3, device="meta")
    monkeypatch.setattr("infdiff.nn.sparse_block._BUSY_ROWS", 60)
    with torch.no_grad():
        by_rows(lambda x: seen.append(x.shape[1]) or x, x)
    assert seen == [30, 20]

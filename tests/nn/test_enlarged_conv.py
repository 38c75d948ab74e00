"""A convolution of an enlarged grid, against enlarging and convolving."""

import pytest
import torch
import torch.nn.functional as F

from infdiff.benchmark.flops import flop_counter
from infdiff.nn.enlarged_conv import conv_of_enlarged


def plain(x, weight, bias, size):
    return F.conv2d(F.interpolate(x, size=size, mode="nearest"), weight, bias, padding=1)


def drawn(side, channels=3, out=2, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = (2, channels, *side), (out, channels, 3, 3), (out,)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("side", "size"),
    [
        ((16, 16), (32, 32)),
        ((13, 29), (26, 58)),
        ((16, 17), (31, 34)),  # an odd side
        ((5, 4), (10, 8)),
    ],
)
def test_values_and_gradients_are_those_of_enlarging_first(side, size, layout):
    """At the borders, too."""
    x, weight, bias = given = drawn(side)
    target = torch.randn(2, 2, *size, dtype=torch.float64)
    results = []
    for function in (conv_of_enlarged, plain):
        out = function(x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout), bias, size)
        results.append((out, *torch.autograd.grad((out * target).sum(), given)))
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-11)


def test_it_takes_four_of_nine_multiply_adds_and_stores_no_enlarged_grid():
    x, weight, bias = drawn((16, 18), channels=8, out=4)
    saved = []

    def keep(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    with flop_counter() as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        conv_of_enlarged(x, weight, bias, (32, 36))
    assert counter.get_total_flops() == 2 * 4 * 8 * 4 * (2 * 32 * 36)
    assert (2, 8, 16, 18) in saved
    assert not any(shape[-2:] == (32, 36) for shape in saved)


def test_weights_cast_by_autocast_and_before_it_are_the_same_numbers():
    x, weight, bias = drawn((16, 16), dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = x.bfloat16()
        by_autocast = conv_of_enlarged(narrow, weight, bias, (32, 32))
        before = conv_of_enlarged(narrow, weight.bfloat16(), bias.bfloat16(), (32, 32))
    assert by_autocast.dtype == torch.bfloat16
    assert torch.equal(by_autocast, before)

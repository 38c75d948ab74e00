"""Convolution of complete images at any scale: all algorithms agree."""

import pytest
import torch

from infdiff import ops
from infdiff.ops.dense_conv2d import (
    ALGORITHMS,
    choose_algorithm,
    dense_conv2d,
    dense_taps_gradient,
)
from infdiff.ops.tap_by_tap import tap_by_tap
from infdiff.points import all_points

SCALES = [(1.0, 1.0), (2.0, 2.0), (1.5, 3.0), (0.5, 0.75), (5.0, 5.0), (5.3, 2.0), (16.0, 3.0), (0.5, 7.9), (0.4, 0.25)]


def image_of(size, channels, generator, dtype=torch.float64):
    return torch.randn(2, *size, channels, dtype=dtype, generator=generator)


def written_out(image, taps, scale):
    """Tap by tap over an index of all pixels."""
    size = tuple(image.shape[1:3])
    ids = all_points(image.shape[0], size)
    kappa = ops.resize_kernel_ref(taps[:, 0], scale)
    total = tap_by_tap(image.flatten(1, 2), kappa, ids, ops.lattice_index_ref(ids, size), size)
    return total.unflatten(1, size)


def algorithms_for(scale):
    return [algorithm for algorithm in ALGORITHMS if algorithm != "dilated" or all(s.is_integer() for s in scale)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(12, 14), (1, 1), (3, 40)])
@pytest.mark.parametrize("k", [3, 5])
def test_algorithms_agree(scale, size, k, generator):
    image = image_of(size, 4, generator)
    taps = torch.randn(4, 1, k, k, dtype=torch.float64, generator=generator)
    expected = written_out(image, taps, scale)
    for algorithm in algorithms_for(scale):
        torch.testing.assert_close(dense_conv2d(image, taps, scale, algorithm), expected, rtol=1e-10, atol=1e-9)
        single = dense_conv2d(image.float(), taps.float(), scale, algorithm)
        assert (single - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("scale", SCALES)
def test_the_gradient_to_the_taps(scale, generator):
    image = image_of((12, 14), 4, generator)
    taps = torch.randn(4, 1, 5, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    grad = image_of((12, 14), 4, generator)
    (expected,) = torch.autograd.grad((written_out(image, taps, scale) * grad).sum(), taps)
    torch.testing.assert_close(dense_taps_gradient(image, grad, 5, scale), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("scale", [*SCALES, (20.0, 2.0), (23.0, 1.0)])
@pytest.mark.parametrize(
    "context", [((0, 9), (0, 0)), ((4, 0), (0, 6)), ((3, 5), (5, 2)), ((11, 10), (0, 0)), ((0, 0), (7, 6))]
)
def test_rows_and_columns_that_are_context(scale, context, generator):
    image = image_of((22, 14), 4, generator)
    taps = torch.randn(4, 1, 5, 5, dtype=torch.float64, generator=generator)
    (above, below), (left, right) = context
    expected = written_out(image, taps, scale)[:, above : 22 - below, left : 14 - right]
    for algorithm in algorithms_for(scale):
        torch.testing.assert_close(
            dense_conv2d(image, taps, scale, algorithm, context), expected, rtol=1e-10, atol=1e-9, msg=algorithm
        )


def test_the_cheapest_algorithm():
    depthwise, regular = torch.zeros(4, 1, 7, 7), torch.zeros(4, 4, 7, 7)
    assert choose_algorithm(depthwise, (1.0, 1.0)) == choose_algorithm(depthwise, (1.5, 1.5)) == "direct"
    assert choose_algorithm(depthwise, (4.0, 8.0)) == "dilated"
    assert choose_algorithm(depthwise, (4.0, 8.5)) == choose_algorithm(depthwise, (128.0, 128.0)) == "fourier"
    assert choose_algorithm(regular, (4.0, 8.5)) == "tents"


def test_the_fourier_algorithm_refuses_regular_taps():
    with pytest.raises(ValueError, match="depthwise"):
        dense_conv2d(torch.zeros(1, 4, 4, 2), torch.zeros(2, 2, 3, 3), (1.0, 1.0), "fourier")

"""The gradient to the taps by a convolution with the gradient as kernel, and over pairs of points: the same numbers."""

import pytest
import torch

from infdiff import ops
from infdiff.ops import taps_gradient
from infdiff.ops.rows import scatter_rows
from infdiff.ops.tap_by_tap import tap_by_tap_gradient
from infdiff.ops.taps_gradient import convolves, sums_over_pairs, taps_by_convolution, taps_by_pairs
from infdiff.points import draw_points

WINDOWS = [(5, 5), (7, 3), (1, 31), (15, 15)]


def features_and_grad(size, count, generator):
    ids = draw_points(3, count, size, generator)
    return ids, *(torch.randn(3, count, 4, dtype=torch.float64, generator=generator) for _ in range(2))


def tap_by_tap(features, grad, ids, size, window):
    return tap_by_tap_gradient(features, grad, ids, ops.lattice_index_ref(ids, size), size, window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("size", "count"), [((12, 14), 40), ((3, 40), 100), ((9, 2), 1), ((6, 6), 36)])
def test_pairs_are_summed_as_tap_by_tap(window, size, count, generator):
    ids, features, grad = features_and_grad(size, count, generator)
    expected = tap_by_tap(features, grad, ids, size, window)
    torch.testing.assert_close(taps_by_pairs(features, grad, ids, size, window), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kernel_pixels", [1, 30, 1 << 12])
def test_a_convolution_with_the_gradient_as_kernel(window, kernel_pixels, generator, monkeypatch):
    monkeypatch.setattr(taps_gradient, "_KERNEL_PIXELS", kernel_pixels)
    size = (12, 14)
    ids, features, grad = features_and_grad(size, 60, generator)
    expected = tap_by_tap(features, grad, ids, size, window)
    images = [scatter_rows(rows, ids, 168).unflatten(1, size).permute(0, 3, 1, 2) for rows in (features, grad)]
    found = taps_by_convolution(*(image.float() for image in images), window)
    assert (found[:, 0] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_where_each_is_taken():
    image = torch.zeros(1, 4, 64, 64)
    assert not convolves(image, (3, 3))
    assert not convolves(image.double(), (7, 7))
    ids = torch.zeros(1, 1024, dtype=torch.int64)
    assert sums_over_pairs(ids, (64, 64), (7, 7))
    assert not sums_over_pairs(ids, (48, 64), (7, 7))
    assert not sums_over_pairs(ids, (64, 64), (31, 31))

"""Strips of whole images: together they are what the operators on all points give."""

import pytest
import torch

from infdiff import ops
from infdiff.ops import tiles
from infdiff.ops.nearest_points import nearest_pixels
from infdiff.points import all_points


@pytest.mark.parametrize("scale", [(1.0, 1.0), (3.0, 3.0), (2.5, 1.5), (0.5, 2.0), (20.0, 4.0)])
@pytest.mark.parametrize("rows", [1, 6, 24])
@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("at_once", [tiles._BYTES_AT_ONCE, 1 << 14])
def test_convolution_of_strips(scale, rows, regular, at_once, generator, monkeypatch):
    # With few bytes at once the columns are convolved in pieces, too.
    monkeypatch.setattr(tiles, "_BYTES_AT_ONCE", at_once)
    size, channels = (24, 17), 18
    features = torch.randn(2, 24 * 17, channels, dtype=torch.float64, generator=generator)
    taps = torch.randn(4 if regular else channels, channels if regular else 1, 5, 5, generator=generator).double()
    ids = all_points(2, size)
    convolve = ops.sparse_conv2d if regular else ops.sparse_depthwise_conv2d_ref
    expected = convolve(features, taps, ids, size, scale).unflatten(1, size)
    reach = ops.rows_around(5, scale)
    for first in range(0, 24, rows):
        # One row more than is read must change nothing.
        start, end = max(0, first - reach - 1), min(24, first + rows + reach)
        window = features.unflatten(1, size)[:, start:end]
        actual = ops.conv2d_strip(window, taps, size, scale, first=first, rows=rows, window_first=start)
        torch.testing.assert_close(actual, expected[:, first : first + rows], rtol=1e-9, atol=1e-9)


def test_missing_rows_are_named(generator):
    taps = torch.zeros(4, 1, 5, 5)
    window = torch.zeros(1, 6, 9, 4)
    with pytest.raises(ValueError, match="rows 4 to 8 read 2 rows to either side: given are rows 3 to 9"):
        ops.conv2d_strip(window, taps, (20, 9), (1.0, 1.0), first=4, rows=4, window_first=3)


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (1, 5), (5, 1), (1, 1), (2, 40), (33, 20)])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (9, 16), (1, 1)])
def test_nearest_pixels_are_the_nearest_points(size, grid):
    number, weight = nearest_pixels(size, grid)
    expected = ops.nearest_points_ref(all_points(1, size), size, grid)
    torch.testing.assert_close(weight, expected.weight, rtol=0, atol=0)
    assert (number == expected.number).logical_or(weight == 0).all()


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_grid_from_strips(rows, generator):
    size, grid = (23, 18), (6, 5)
    features = torch.randn(2, 23 * 18, 3, generator=generator)
    collected = ops.GridFromStrips(size, grid, features.device)
    for first in reversed(range(0, 23, rows)):
        collected.add(features[:, first * 18 : (first + rows) * 18], first)
    expected = ops.points_to_grid(features, ops.nearest_points(all_points(2, size), size, grid))
    torch.testing.assert_close(collected.read(), expected, rtol=0, atol=0)

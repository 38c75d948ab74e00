"""Tiles of images: concatenated, they equal the operators' results on all points."""

import pytest
import torch

from infdiff import ops
from infdiff.points import all_points


@pytest.mark.parametrize("scale", [(1.0, 1.0), (3.0, 3.0), (2.5, 1.5), (0.5, 2.0), (0.4, 0.25), (20.0, 4.0)])
@pytest.mark.parametrize("rows", [1, 6, 24])
@pytest.mark.parametrize("regular", [False, True])
def test_convolution_of_tiles(scale, rows, regular, generator):
    size, channels = (24, 17), 18
    features = torch.randn(2, 24 * 17, channels, dtype=torch.float64, generator=generator)
    taps = torch.randn(4 if regular else channels, channels if regular else 1, 5, 5, generator=generator).double()
    ids = all_points(2, size)
    convolve = ops.sparse_conv2d if regular else ops.sparse_depthwise_conv2d_ref
    points = ops.Points.of(ids, size, 5, scale, torch.float64)
    expected = convolve(features, taps, points).unflatten(1, size)
    reach = ops.rows_around(5, scale)
    for first in range(0, 24, rows):
        # One row more than is read must change nothing.
        start, end = max(0, first - reach - 1), min(24, first + rows + reach)
        window = features.unflatten(1, size)[:, start:end]
        place = {"first": first, "tile_rows": rows, "window_first": start}
        # With few bytes at once the columns are convolved in pieces, too.
        for limit in ({}, {"max_bytes": 1 << 14}):
            actual = ops.conv2d_tile(window, taps, size, scale, **place, **limit)
            torch.testing.assert_close(actual, expected[:, first : first + rows], rtol=1e-9, atol=1e-9)


def test_missing_rows_are_named(generator):
    taps = torch.zeros(4, 1, 5, 5)
    window = torch.zeros(1, 6, 9, 4)
    with pytest.raises(ValueError, match="rows 4 to 8 read 2 rows to either side: given are rows 3 to 9"):
        ops.conv2d_tile(window, taps, (20, 9), (1.0, 1.0), first=4, tile_rows=4, window_first=3)


@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("grid", [(6, 5), (23, 6), (23, 18), (14, 11), (40, 9)])
def test_a_grid_from_tiles(rows, grid, generator):
    size = (23, 18)
    features = torch.randn(2, 23 * 18, 3, generator=generator)
    collected = ops.GridFromTiles(size, grid, features.device)
    for first in reversed(range(0, 23, rows)):
        collected.add(features[:, first * 18 : (first + rows) * 18], first)
    expected = ops.points_to_grid(features, ops.nearest_points(all_points(2, size), size, grid))
    torch.testing.assert_close(collected.read(), expected, rtol=1e-6, atol=1e-6)

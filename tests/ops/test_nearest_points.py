"""The 3 nearest points of each cell, against brute force."""

import pytest
import torch

from infdiff import ops
from infdiff.ops.nearest_points import nearest_pixels
from infdiff.points import all_points, draw_points

CASES = [
    ((64, 64), (32, 32), 1024),
    ((64, 64), (16, 16), 64),
    ((96, 96), (32, 32), 700),
    ((48, 80), (16, 24), 500),
    ((7, 5), (3, 4), 2),
    ((5, 300), (4, 9), 100),
    ((12, 12), (12, 12), 30),
    ((9, 9), (3, 3), 81),
    ((6, 6), (4, 4), 1),
    ((1, 1), (2, 2), 1),
]


def brute_force(ids, size, grid):
    """Neighbours by exact whole-number arithmetic in plain Python: (distance, id) sorted."""
    table = []
    for gy in range(grid[0]):
        for gx in range(grid[1]):
            candidates = []
            for number, pixel in enumerate(ids.tolist()):
                row, column = divmod(pixel, size[1])
                # Offsets over the common denominator 2 * H * G * W * K.
                dy = ((2 * row + 1) * grid[0] - (2 * gy + 1) * size[0]) * size[1] * grid[1]
                dx = ((2 * column + 1) * grid[1] - (2 * gx + 1) * size[1]) * size[0] * grid[0]
                candidates.append((dy * dy + dx * dx, number))
            table.append(sorted(candidates)[:3])
    return table


@pytest.mark.parametrize(("size", "grid", "count"), CASES)
def test_nearest_points_equal_the_table_of_all_distances(size, grid, count, generator):
    ids = draw_points(3, count, size, generator)
    fast, slow = ops.nearest_points(ids, size, grid), ops.nearest_points_ref(ids, size, grid)
    assert torch.equal(fast.number, slow.number)
    assert torch.equal(fast.weight, slow.weight)


@pytest.mark.parametrize(("size", "grid", "count"), [((8, 8), (4, 4), 64), ((6, 6), (4, 4), 12), ((5, 8), (3, 3), 9)])
def test_nearest_points_equal_whole_number_arithmetic_ties_included(size, grid, count, generator):
    ids = draw_points(1, count, size, generator)
    near = ops.nearest_points(ids, size, grid)
    for cell, expected in enumerate(brute_force(ids[0], size, grid)):
        assert near.number[0, cell].tolist() == [number for _, number in expected]
        if expected[0][0] > 0:
            inverse = [1 / distance for distance, _ in expected]
            torch.testing.assert_close(
                near.weight[0, cell].double(), torch.tensor(inverse).double() / sum(inverse), rtol=1e-6, atol=1e-6
            )


def test_clustered_points_are_searched_exactly(generator):
    # All points in one corner: most cells are far from any.
    ids = torch.arange(20).view(4, 5) + 64 * torch.arange(4)[:, None]
    ids = ids.flatten().unique().view(1, -1)
    fast, slow = ops.nearest_points(ids, (64, 64), (16, 16)), ops.nearest_points_ref(ids, (64, 64), (16, 16))
    assert torch.equal(fast.number, slow.number)


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (1, 5), (5, 1), (1, 1), (2, 40), (33, 20)])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (9, 16), (1, 1)])
def test_nearest_pixels_are_the_nearest_points(size, grid):
    number, weight = nearest_pixels(size, grid)
    expected = ops.nearest_points_ref(all_points(1, size), size, grid)
    torch.testing.assert_close(weight, expected.weight, rtol=0, atol=0)
    assert (number == expected.number).logical_or(weight == 0).all()

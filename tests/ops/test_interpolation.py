"""Points -> grid and grid -> points, against brute force and grid_sample."""

import pytest
import torch
import torch.nn.functional as F

from infdiff import ops
from infdiff.coordinates import pixel_coordinates, to_grid_sample
from infdiff.ops.rows import gather_rows, scatter_rows
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


def test_a_point_on_a_cell_centre_takes_all():
    ids = all_points(1, (9, 9))
    near = ops.nearest_points(ids, (9, 9), (3, 3))
    features = torch.randn(1, 81, 2)
    grid = ops.points_to_grid(features, near)
    assert grid.isfinite().all()
    torch.testing.assert_close(grid[0, :, 1, 1], features[0, 40])


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_points(count):
    ids = torch.tensor([[3, 17]])[:, :count]
    near = ops.nearest_points(ids, (6, 6), (2, 2))
    grid = ops.points_to_grid(torch.full((1, count, 1), 5.0), near)
    torch.testing.assert_close(grid, torch.full((1, 1, 2, 2), 5.0))


@pytest.mark.parametrize(
    ("size", "grid"), [((16, 16), (8, 8)), ((15, 22), (8, 8)), ((16, 16), (4, 8)), ((4, 4), (9, 7))]
)
def test_grid_to_points_is_grid_sample(size, grid, generator):
    image = torch.randn(2, 3, *grid, dtype=torch.float64, generator=generator)
    ids = draw_points(2, max(1, size[0] * size[1] // 3), size, generator)
    where = to_grid_sample(pixel_coordinates(ids, size, torch.float64)).unsqueeze(1)
    expected = F.grid_sample(image, where, padding_mode="border", align_corners=False)[:, :, 0].mT
    torch.testing.assert_close(ops.grid_to_points(image, ids, size), expected)


def test_dense_grid_to_points_is_the_sparse_one(generator):
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=generator)
    ids = all_points(1, (11, 8))
    torch.testing.assert_close(ops.grid_to_points(image, ids, (11, 8)), ops.grid_to_points_ref(image, ids, (11, 8)))


def test_a_smooth_function_survives_the_round_trip():
    size, grid = (64, 64), (32, 32)
    ids = draw_points(1, 2048, size, torch.Generator().manual_seed(1))
    place = pixel_coordinates(ids, size)
    values = torch.sin(2 * place[..., :1]) + place[..., 1:] ** 2
    near = ops.nearest_points(ids, size, grid)
    back = ops.grid_to_points(ops.points_to_grid(values, near), ids, size)
    # Three nearest of half the pixels lie within about 1.5 pixels; the slope is at most 2.
    assert (back - values).abs().mean() < 0.02
    assert (back - values).abs().max() < 0.1


def test_gradients_are_right(generator):
    ids = draw_points(2, 9, (5, 5), generator)
    near = ops.nearest_points(ids, (5, 5), (3, 3))
    near = near._replace(weight=near.weight.double())
    features = torch.randn(2, 9, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    grid = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: ops.points_to_grid(f, near), (features,))
    assert torch.autograd.gradcheck(lambda g: ops.grid_to_points(g, ids, (5, 5)), (grid,))


def test_rows_move_there_and_back(generator):
    ids = draw_points(2, 4, (3, 3), generator)
    features = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    whole = torch.randn(2, 9, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.equal(gather_rows(scatter_rows(features, ids, 9), ids), features)
    assert torch.autograd.gradcheck(lambda f: scatter_rows(f, ids, 9), (features,))
    assert torch.autograd.gradcheck(lambda f: gather_rows(f, ids), (whole,))


def test_lattice_index_numbers_the_points():
    index = ops.lattice_index(torch.tensor([[1, 3], [0, 5]]), (2, 3))
    assert index.dtype == torch.int32
    assert index.tolist() == [[[-1, 0, -1], [1, -1, -1]], [[0, -1, -1], [-1, -1, 1]]]

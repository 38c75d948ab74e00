"""Points -> grid and grid -> points, against grid_sample and functions known in closed form."""

import pytest
import torch
import torch.nn.functional as F

from infdiff import ops
from infdiff.coordinates import pixel_coordinates, to_grid_sample
from infdiff.points import all_points, draw_points


def test_a_point_on_a_cell_centre_takes_all():
    # The centre of a 9 x 9 image, and two more: a cell with many points would read their mean.
    near = ops.nearest_points(torch.tensor([[31, 40, 47]]), (9, 9), (3, 3))
    features = torch.randn(1, 3, 2)
    grid = ops.points_to_grid(features, near)
    assert grid.isfinite().all()
    torch.testing.assert_close(grid[0, :, 1, 1], features[0, 1])


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


@pytest.mark.parametrize(
    ("size", "grid", "count"),
    [((5, 5), (3, 3), 9), ((5, 5), (3, 3), 25), ((6, 6), (3, 3), 36), ((6, 6), (3, 3), 24), ((10, 5), (4, 2), 30)],
)
def test_gradients_are_right(size, grid, count, generator):
    ids = draw_points(2, count, size, generator)
    near = ops.nearest_points(ids, size, grid)
    near = near._replace(weight=near.weight.double())
    features = torch.randn(2, count, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    image = torch.randn(2, 2, *grid, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: ops.points_to_grid(f, near), (features,))
    assert torch.autograd.gradcheck(lambda f: ops.points_to_grid_ref(f, near), (features,))
    assert torch.autograd.gradcheck(lambda g: ops.grid_to_points(g, ids, size), (image,))

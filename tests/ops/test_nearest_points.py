"""What each cell reads of the points, against brute force in whole numbers, and the laws it keeps."""

from fractions import Fraction

import pytest
import torch

from infdiff import ops
from infdiff.ops.nearest_search import among_all, among_rows
from infdiff.points import all_points, draw_points

CASES = [
    ((64, 64), (32, 32), 1024),
    ((64, 64), (32, 32), 3000),
    ((64, 64), (16, 16), 64),
    ((96, 96), (32, 32), 700),
    ((48, 80), (16, 24), 500),
    ((50, 50), (20, 20), 300),
    ((7, 5), (3, 4), 2),
    ((5, 300), (4, 9), 100),
    ((12, 12), (12, 12), 30),
    ((9, 9), (3, 3), 81),
    ((8, 8), (4, 4), 64),
    ((15, 10), (6, 4), 150),
    ((6, 6), (4, 4), 1),
    ((1, 1), (2, 2), 1),
]


def matrix(near):
    """(B, G * K, L): the weight of each point in each cell, as `points_to_grid` applies it."""
    count = near.ids.shape[1]
    unit = torch.eye(count).expand(near.ids.shape[0], -1, -1)
    return ops.points_to_grid(unit, near).flatten(2).mT


def brute_force(ids, size, grid):
    """The same for points ids (L,) in exact arithmetic, cell by cell as the law says it."""
    pixels = [divmod(pixel, size[1]) for pixel in ids.tolist()]
    places = [(Fraction(2 * y + 1, 2 * size[0]), Fraction(2 * x + 1, 2 * size[1])) for y, x in pixels]
    table = []
    for gy in range(grid[0]):
        for gx in range(grid[1]):
            table.append(weights_of_cell(places, (gy, gx), grid))
    return torch.tensor(table, dtype=torch.float64)


def weights_of_cell(places, cell, grid):
    held = [part(y, cell[0], grid[0]) * part(x, cell[1], grid[1]) for y, x in places]
    if sum(held) > 3:
        return [float(h / sum(held)) for h in held]
    centre = [Fraction(2 * c + 1, 2 * n) for c, n in zip(cell, grid, strict=True)]
    distance = [(y - centre[0]) ** 2 + (x - centre[1]) ** 2 for y, x in places]
    if 0 in distance:
        return [float(d == 0) for d in distance]
    weights, left = [Fraction(0)] * len(places), 3
    for value in sorted(set(distance)):
        group = [i for i, d in enumerate(distance) if d == value]
        for i in group:
            weights[i] = min(Fraction(1), Fraction(left, len(group))) / value
        left -= min(left, len(group))
        if left == 0:
            break
    return [float(w / sum(weights)) for w in weights]


def part(place, cell, cells):
    low, high = Fraction(cell, cells), Fraction(cell + 1, cells)
    return Fraction(int(low < place < high)) + Fraction(int(place in (low, high)), 2)


@pytest.mark.parametrize(("size", "grid", "count"), CASES)
def test_nearest_points_equal_the_table_of_all_distances(size, grid, count, generator):
    ids = draw_points(3, count, size, generator)
    fast, slow = ops.nearest_points(ids, size, grid), ops.nearest_points_ref(ids, size, grid)
    assert torch.equal(fast.number, slow.number)
    assert torch.equal(fast.share, slow.share)
    assert torch.equal(fast.reach, slow.reach)
    torch.testing.assert_close(fast.weight, slow.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("size", "grid", "count"), CASES)
def test_three_points_on_either_side_in_each_row_are_enough(size, grid, count, generator):
    ids = draw_points(2, count, size, generator)
    every = torch.arange(2 * grid[0] * grid[1])
    for rows, everything in zip(among_rows(ids, size, grid), among_all(ids, size, grid, every), strict=True):
        assert torch.equal(rows, everything)


@pytest.mark.parametrize(
    ("size", "grid", "count"),
    [
        ((8, 8), (4, 4), 64),
        ((8, 8), (4, 4), 16),
        ((8, 8), (4, 4), 40),
        ((8, 8), (8, 8), 20),
        ((10, 10), (4, 4), 100),
        ((10, 10), (4, 4), 45),
        ((12, 12), (3, 3), 12),
        ((24, 24), (3, 3), 10),
        ((6, 6), (4, 4), 12),
        ((5, 8), (3, 3), 9),
        ((5, 8), (3, 3), 40),
        ((3, 4), (6, 5), 12),
        ((4, 4), (9, 7), 2),
    ],
)
def test_each_cell_reads_what_whole_numbers_say(size, grid, count, generator):
    for ids in draw_points(8, count, size, generator):
        near = ops.nearest_points(ids[None], size, grid)
        torch.testing.assert_close(matrix(near)[0].double(), brute_force(ids, size, grid), rtol=1e-6, atol=1e-6)
        # All weights are means of values: a constant stays.
        torch.testing.assert_close(matrix(near).sum(dim=2), torch.ones(1, grid[0] * grid[1]))


@pytest.mark.parametrize("one_in", [1, 2, 4, 16, 64])
@pytest.mark.parametrize(("size", "grid"), [((32, 32), (16, 16)), ((32, 32), (32, 32)), ((40, 40), (16, 16))])
def test_a_flipped_image_gives_the_flipped_grid(size, grid, one_in, generator):
    count = size[0] * size[1] // one_in
    ids = all_points(2, size) if one_in == 1 else draw_points(64, count, size, generator)
    features = torch.randn(*ids.shape, 1, generator=generator)
    image = (
        torch.full((len(ids), size[0] * size[1]), float("nan")).scatter_(1, ids, features[..., 0]).unflatten(1, size)
    )
    expected = grid_of(image, grid)
    for flip in (lambda t: t.flip(1), lambda t: t.flip(2), lambda t: t.mT):
        torch.testing.assert_close(grid_of(flip(image), grid), flip(expected), rtol=1e-5, atol=1e-6)


def grid_of(image, grid):
    """An image (B, H, W), NaN where there is no point, on a grid (B, G, K)."""
    size, present = tuple(image.shape[1:]), image.flatten(1).isfinite()
    ids = present.nonzero()[:, 1].view(len(image), -1)
    near = ops.nearest_points(ids, size, grid)
    return ops.points_to_grid(image.flatten(1).gather(1, ids).unsqueeze(2), near)[:, 0]


@pytest.mark.parametrize("side", [2, 8])
def test_a_full_cell_reads_its_plain_mean(side, generator):
    size, cell = (4 * side, 3 * side), torch.zeros(4 * side, 3 * side, dtype=torch.bool)
    cell[side : 2 * side, 2 * side :] = True
    sparse = cell.flatten().nonzero()[:, 0].view(1, -1)
    with_others = torch.cat([sparse[0], draw_points(1, 10, size, generator)[0]]).unique()[None]
    for ids in (sparse, with_others, all_points(1, size)):
        features = torch.randn(*ids.shape, 2, generator=generator)
        grid = ops.points_to_grid(features, ops.nearest_points(ids, size, (4, 3)))
        held = cell.flatten()[ids[0]]
        torch.testing.assert_close(grid[0, :, 1, 2], features[0, held].mean(dim=0))


def test_all_pixels_are_pooled_where_sizes_divide(generator):
    image = torch.randn(2, 3, 12, 18, generator=generator)
    near = ops.nearest_points(all_points(2, (12, 18)), (12, 18), (4, 9))
    expected = torch.nn.functional.avg_pool2d(image, (3, 2))
    torch.testing.assert_close(ops.points_to_grid(image.flatten(2).mT, near), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_many_points_on_one_circle(count):
    # Around the pixel in the middle, 24 have the squared distance 325.
    side, circle = 41, [(1, 18), (6, 17), (10, 15)][:count]
    offsets = {(s * a, t * b) for p in circle for a, b in (p, p[::-1]) for s in (1, -1) for t in (1, -1)}
    pixels = sorted((20 + dy) * side + 20 + dx for dy, dx in offsets)
    size, grid = (side, side), (41, 41)
    ids = torch.tensor([pixels])
    near = ops.nearest_points(ids, size, grid)
    slow = ops.nearest_points_ref(ids, size, grid)
    assert torch.equal(near.number, slow.number)
    torch.testing.assert_close(near.weight, slow.weight)
    centre = matrix(near)[0, 20 * 41 + 20].sort().values
    # Eight fit; of more, those nearest to the centre's row or column, which are eight.
    torch.testing.assert_close(centre[-8:], torch.full((8,), 1 / 8))
    assert not centre[:-8].any()


def test_clustered_points_are_searched_exactly():
    # All points in one corner: most cells are far from any.
    ids = torch.arange(20).view(4, 5) + 64 * torch.arange(4)[:, None]
    ids = ids.flatten().unique().view(1, -1)
    fast, slow = ops.nearest_points(ids, (64, 64), (16, 16)), ops.nearest_points_ref(ids, (64, 64), (16, 16))
    assert torch.equal(fast.number, slow.number)
    # And so many that near pixels are read first.
    ids = (torch.arange(40)[:, None] * 64 + torch.arange(40)).flatten().view(1, -1)
    fast, slow = ops.nearest_points(ids, (64, 64), (32, 32)), ops.nearest_points_ref(ids, (64, 64), (32, 32))
    assert torch.equal(fast.number, slow.number)
    torch.testing.assert_close(fast.weight, slow.weight)


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (1, 5), (5, 1), (1, 1), (2, 40), (33, 20)])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (9, 16), (1, 1)])
def test_of_all_pixels_a_few_need_to_be_looked_at(size, grid):
    ids = all_points(1, size)
    fast, slow = ops.nearest_points(ids, size, grid), ops.nearest_points_ref(ids, size, grid)
    assert torch.equal(fast.number, slow.number)
    torch.testing.assert_close(fast.weight, slow.weight, rtol=1e-6, atol=0)
    torch.testing.assert_close(matrix(fast), matrix(slow))

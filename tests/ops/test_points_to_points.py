"""Points -> points: against a loop, and as a linear map."""

import pytest
import torch

from infdiff import ops
from infdiff.points import all_points, draw_points

SIZE = (7, 9)


def loop(features, at, ids, size):
    """The mean of the 3 nearest points by inverse squared distance; those as near as the third share what is left."""

    def place(pixel):
        return (pixel // size[1] + 0.5) / size[0], (pixel % size[1] + 0.5) / size[1]

    rows = []
    for pixel in at.tolist():
        y, x = place(pixel)
        squares = [round((y - v) ** 2 + (x - u) ** 2, 12) for v, u in map(place, ids.tolist())]
        if 0.0 in squares:
            rows.append(features[squares.index(0.0)])
            continue
        third = sorted(squares)[min(3, len(squares)) - 1]
        nearer, equal = sum(s < third for s in squares), squares.count(third)
        share = min(1.0, (3 - nearer) / equal)
        weights = [0.0 if s > third else (1 / s) * (share if s == third else 1.0) for s in squares]
        rows.append(sum(w * f for w, f in zip(weights, features, strict=True)) / sum(weights))
    return torch.stack(rows)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
@pytest.mark.parametrize("size", [SIZE, (8, 8)])
def test_it_is_the_mean_of_the_nearest_points(count, size, generator):
    ids = draw_points(2, count, size, generator)
    at = draw_points(2, 30, size, generator)
    features = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    out = ops.points_to_points(features, ops.sources_of(at, ids, size))
    for image in range(2):
        expected = loop(features[image], at[image], ids[image], size)
        torch.testing.assert_close(out[image], expected, rtol=1e-6, atol=1e-6)


def test_a_constant_stays_and_points_keep_their_own_values(generator):
    ids, everywhere = draw_points(2, 12, SIZE, generator), all_points(2, SIZE)
    constant = torch.full((2, 12, 1), 3.25, dtype=torch.float64)
    out = ops.points_to_points(constant, ops.sources_of(everywhere, ids, SIZE))
    torch.testing.assert_close(out, torch.full_like(out, 3.25), rtol=1e-6, atol=0)
    features = torch.randn(2, 12, 4, generator=generator)
    assert torch.equal(ops.points_to_points(features, ops.sources_of(ids, ids, SIZE)), features)


def test_the_gradient_is_that_of_a_linear_map(generator):
    ids, at = draw_points(2, 6, SIZE, generator), draw_points(2, 11, SIZE, generator)
    sources = ops.sources_of(at, ids, SIZE)
    features = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: ops.points_to_points(f, sources), features)

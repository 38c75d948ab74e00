"""Points among valid pixels: as those among all, but of valid ones alone."""

import pytest
import torch

from infdiff import points
from infdiff.points import KINDS, draw_points, draw_valid_points

SIZES = [(20, 24), (9, 7), (16, 16), (32, 18)]


def drawn(valid, count, kind, seed=0):
    return draw_valid_points(valid, count, torch.Generator().manual_seed(seed), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_where_all_are_valid_the_points_are_those_of_draw_points(kind, size):
    valid = torch.ones(3, *size, dtype=torch.bool)
    for count in (1, 13, size[0] * size[1] // 4, size[0] * size[1]):
        expected = draw_points(3, count, size, torch.Generator().manual_seed(0), kind)
        assert torch.equal(drawn(valid, count, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_points_are_valid_sorted_and_not_repeated(kind, size):
    valid = torch.rand(4, *size, generator=torch.Generator().manual_seed(1)) < torch.tensor([0.3, 0.5, 0.9, 0.4]).view(
        4, 1, 1
    )
    fewest = int(valid.flatten(1).sum(dim=1).min())
    for count in (1, fewest // 2, fewest):
        ids = drawn(valid, count, kind)
        assert ids.shape == (4, count)
        assert valid.flatten(1).gather(1, ids).all()
        assert (ids.diff(dim=1) > 0).all()
    # Of the image with the fewest, all.
    row = int(valid.flatten(1).sum(dim=1).argmin())
    assert torch.equal(drawn(valid, fewest, kind)[row], valid[row].flatten().nonzero()[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_valid_pixel_is_drawn_alike(kind):
    valid = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    count, rows = 27, 4000
    assert valid.sum() % count == 0  # equal runs for stratified points
    ids = drawn(valid.expand(rows, -1, -1), count, kind)
    hits = torch.bincount(ids.flatten(), minlength=256)[valid.flatten()].double() / rows
    share = count / valid.sum().item()
    # Five standard deviations of a share of 4000 draws; a low-discrepancy sequence prefers pixels next to holes no more
    # than its own gaps make it.
    limit = 5 * (share * (1 - share) / rows) ** 0.5
    assert (hits - share).abs().max() < limit * (4 if kind == "halton" else 1)


def test_uniform_points_are_the_first_valid_ones_of_the_permutation():
    size, count = (20, 24), 5
    valid = torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) < torch.tensor([0.9, 0.3, 0.03]).view(
        3, 1, 1
    )
    ids = drawn(valid, count, "uniform")
    for row in range(3):
        # The smallest subset of all pixels that holds so many valid ones.
        for tried in range(count, 480):
            pixels = draw_points(3, tried, size, torch.Generator().manual_seed(0))[row]
            first = pixels[valid[row].flatten()[pixels]]
            if len(first) == count:
                break
        assert torch.equal(ids[row], first)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_drawing_few_points_visits_few_pixels(monkeypatch, share):
    visited, permuted = [], points.permuted_pixels

    def count_them(keys, count, size):
        visited.append(count)
        return permuted(keys, count, size)

    monkeypatch.setattr(points, "permuted_pixels", count_them)
    valid = torch.rand(2, 256, 256, generator=torch.Generator().manual_seed(3)) < share
    drawn(valid, 100, "uniform")
    assert visited[-1] <= 400 / share
    assert sum(visited) < 2 * visited[-1]


def test_what_cannot_be_drawn_is_refused():
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="cannot draw 17"):
        drawn(valid, 17, "uniform")
    with pytest.raises(ValueError, match="unknown kind"):
        drawn(valid, 3, "round")

"""Draws of pixel subsets: sorted, without repeats, fair, reproducible."""

import pytest
import torch
from scipy import stats

from infdiff.points import KINDS, all_points, draw_points, draw_subsets, gather, scatter, subset_points

SHAPES = [((64, 64), 1024), ((5, 300), 129), ((17, 31), 526), ((16, 16), 255), ((1, 1), 1), ((2, 3), 6), ((40, 40), 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "count"), SHAPES)
def test_draws_are_sorted_without_repeats_and_inside(kind, size, count, generator):
    ids = draw_points(5, count, size, generator, kind)
    assert ids.shape == (5, count)
    assert ids.dtype == torch.int64
    assert (ids.diff(dim=1) > 0).all()
    assert ids.min() >= 0
    assert ids.max() < size[0] * size[1]


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_the_generator_alone(kind):
    def draw(seed):
        return draw_points(3, 50, (20, 20), torch.Generator().manual_seed(seed), kind)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_is_drawn_equally_often(kind, generator):
    size, count, draws = (16, 20), 80, 4000
    ids = draw_points(draws, count, size, generator, kind)
    seen = torch.bincount(ids.flatten(), minlength=320).double()
    # Draws are independent, so each count is binomial with p = 1/4, at most (stratified draws vary no more).
    deviation = (draws * 3 / 16) ** 0.5
    assert (seen - draws / 4).abs().max() < stats.norm.isf(1e-6 / 320) * deviation


def test_uniform_draws_have_independent_neighbours(generator):
    # Pairs of adjacent pixels must be drawn together as often as chance says: p = 80 * 79 / (320 * 319).
    draws = 4000
    ids = draw_points(draws, 80, (16, 20), generator)
    chosen = torch.zeros(draws, 320).scatter_(1, ids, 1.0).view(draws, 16, 20)
    expected = 80 * 79 / (320 * 319)
    deviation = (expected * (1 - expected) / draws) ** 0.5
    for pairs in (chosen[:, 1:] * chosen[:, :-1], chosen[:, :, 1:] * chosen[:, :, :-1]):
        frequency = pairs.mean(dim=0)
        assert (frequency - expected).abs().max() < 6 * deviation
        assert abs(frequency.mean() - expected) < 5 * deviation / frequency.numel() ** 0.5 + 1e-3


def test_stratified_draws_one_pixel_of_every_patch(generator):
    ids = draw_points(7, 64, (16, 16), generator, "stratified")
    chosen = torch.zeros(7, 256).scatter_(1, ids, 1.0).view(7, 8, 2, 8, 2)
    assert (chosen.sum(dim=(2, 4)) == 1).all()


def test_halton_covers_more_evenly_than_uniform(generator):
    def imbalance(kind):
        ids = draw_points(200, 64, (32, 32), generator, kind)
        quadrants = torch.zeros(200, 1024).scatter_(1, ids, 1.0).view(200, 2, 16, 2, 16).sum(dim=(2, 4))
        return quadrants.var(dim=0).mean()

    assert imbalance("halton") < imbalance("uniform") / 4


@pytest.mark.parametrize("count", [0, 101, -1])
def test_impossible_counts_are_refused(count, generator):
    with pytest.raises(ValueError, match="pixels"):
        draw_points(1, count, (10, 10), generator)


def test_unknown_kind_is_refused(generator):
    with pytest.raises(ValueError, match="sobol"):
        draw_points(1, 4, (10, 10), generator, "sobol")


def test_gather_reads_what_scatter_wrote(generator):
    ids = draw_points(3, 20, (6, 9), generator)
    values = torch.randn(3, 20, 2, generator=generator)
    image = scatter(values, ids, (6, 9), fill=7.0)
    assert torch.equal(gather(image, ids), values)
    assert (image == 7.0).sum() == 3 * 2 * (54 - 20)
    # By hand: pixel id 9 * i + j is row i, column j.
    first = ids[0, 0].item()
    assert torch.equal(image[0, :, first // 9, first % 9], values[0, 0])


def test_dense_points_are_every_pixel_in_order():
    assert all_points(2, (2, 3)).tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_subset_is_a_function_of_the_points(generator):
    size = (16, 20)
    ids = draw_points(3, 90, size, generator)
    kept = subset_points(ids, 30)
    assert kept.shape == (3, 30)
    assert (kept.diff(dim=1) > 0).all()
    assert torch.equal(subset_points(ids, 30), kept)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(subset_points(ids[order], 30), kept[order])
    assert torch.equal(subset_points(ids, 90), torch.arange(90).expand(3, -1))
    for count in (0, 91):
        with pytest.raises(ValueError, match=f"cannot keep {count} of 90 points"):
            subset_points(ids, count)


def test_a_subset_is_random(generator):
    """Each of 64 points of 400 images is kept as often as another, and two of them as often together as apart."""
    ids = draw_points(400, 64, (32, 32), generator)
    kept = torch.zeros(400, 64, dtype=torch.float64).scatter_(1, subset_points(ids, 16), 1.0)
    # A count of 400 draws at 1/4 has a standard deviation of 8.7; the largest of 64 is below 4 of them.
    assert (kept.sum(dim=0) - 100).abs().max() < 4 * 8.7
    together = (kept[:, :-1] * kept[:, 1:]).mean()
    assert together == pytest.approx(16 / 64 * 15 / 63, abs=4 * (0.06 * 0.94 / (400 * 63)) ** 0.5)
    # And wherever it lies: a pixel that is in the image's set is kept in a quarter of the images, not always or never.
    of_pixel = torch.zeros(1024, dtype=torch.float64).scatter_add_(0, ids.flatten(), kept.flatten())
    met = torch.bincount(ids.flatten(), minlength=1024)
    assert ((of_pixel / met)[met >= 20] < 0.9).all()


@pytest.mark.parametrize("size", [(20, 17), (8, 30)])
@pytest.mark.parametrize("kind", KINDS)
def test_subsets_at_once_are_those_of_calls_after_one_another(kind, size):
    for count in (40, size[0] * size[1]):
        generator = torch.Generator().manual_seed(3)
        wanted = [draw_points(3, count, size, generator, kind) for _ in range(2)]
        found = draw_subsets(2, 3, count, size, torch.Generator().manual_seed(3), kind)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert count == size[0] * size[1] or not torch.equal(*found)

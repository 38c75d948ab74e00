"""Precision, recall, diversity and memorisation on constructed sets, and nearest neighbours by brute force."""

import numpy as np
import pytest
import torch

from infdiff.metrics import neighbours
from infdiff.metrics.neighbours import mean_distance, memorisation, nearest, precision_and_recall


@pytest.fixture(params=[5, 1024], ids=["few rows at once", "all rows"])
def rows_at_once(request, monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", request.param)


def brute(a, b):
    return np.sqrt(((a.numpy()[:, None] - b.numpy()[None]) ** 2).sum(-1))


@pytest.mark.usefixtures("rows_at_once")
def test_nearest_neighbours_by_brute_force(generator):
    a, b = torch.randn(33, 4, generator=generator), torch.randn(47, 4, generator=generator)
    found, distances = nearest(a, b, 3), brute(a, b)
    order = distances.argsort(1)[:, :3]
    assert (found.indices.numpy() == order).all()
    np.testing.assert_allclose(found.distances.numpy(), np.take_along_axis(distances, order, 1), rtol=1e-4)
    assert nearest(a, b[:2], 3).indices.shape == (33, 2)


@pytest.mark.usefixtures("rows_at_once")
def test_precision_and_recall_by_brute_force(generator):
    generated = torch.randn(40, 3, generator=generator) * 0.6
    real = torch.randn(50, 3, generator=generator)

    def part(points, reference):
        radii = np.sort(brute(reference, reference), 1)[:, 3]
        return (brute(points, reference) <= radii).any(1).mean()

    expected = part(generated, real), part(real, generated)
    assert precision_and_recall(generated, real) == pytest.approx(expected)
    assert expected[0] > expected[1] > 0  # narrower: precise, and short of variety


@pytest.mark.usefixtures("rows_at_once")
def test_precision_and_recall_of_constructed_sets(generator):
    real = torch.randn(60, 8, generator=generator)
    assert precision_and_recall(real, real.clone()) == (1.0, 1.0)
    assert precision_and_recall(real + 1000, real) == (0.0, 0.0)
    # Half of it elsewhere: half as precise, and what stays covers all.
    assert precision_and_recall(torch.cat([real, real + 1000]), real) == (0.5, 1.0)
    # Two clusters, of which the generator knows one.
    both = torch.cat([real, real + 1000])
    assert precision_and_recall(real, both) == (1.0, 0.5)


@pytest.mark.usefixtures("rows_at_once")
def test_mean_distance_by_hand(generator):
    assert mean_distance(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx((1 + 3 + 2) / 3)
    same = torch.randn(1, 5, generator=generator).expand(30, -1)
    assert mean_distance(same.contiguous()) == pytest.approx(0, abs=1e-3)
    wide = torch.randn(30, 5, generator=generator)
    assert mean_distance(wide * 2) == pytest.approx(2 * mean_distance(wide), rel=1e-5)


def test_memorisation_by_counting_pairs(generator):
    train, held_out = torch.randn(20, 3, generator=generator), torch.randn(15, 3, generator=generator)
    generated = torch.randn(10, 3, generator=generator)
    generated[:3] = held_out[:3]  # ties
    own, others = brute(generated, train).min(1), brute(held_out, train).min(1)
    score = [(1.0 if a < b else 0.5 if a == b else 0.0) for a in own for b in others]
    assert memorisation(generated, held_out, train) == pytest.approx(np.mean(score))


def test_memorisation_of_copies_of_unseen_images_and_of_noise(generator):
    train, held_out = torch.randn(200, 3, generator=generator), torch.randn(200, 3, generator=generator)
    assert memorisation(train[:50].clone(), held_out, train) == 1.0
    assert memorisation(held_out.clone(), held_out, train) == pytest.approx(0.5)
    unseen = torch.randn(200, 3, generator=generator)
    assert memorisation(unseen, held_out, train) == pytest.approx(0.5, abs=0.1)
    assert memorisation(unseen + 100, held_out, train) == 0.0


def test_too_few_images():
    few = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="3 images"):
        precision_and_recall(few, torch.zeros(9, 2))
    with pytest.raises(ValueError, match="1 image"):
        mean_distance(few[:1])

"""Sets compared metric by metric."""

import dataclasses

import numpy as np
import pytest
import torch

from infdiff.errors import UserError
from infdiff.metrics.compare import (
    LEGEND,
    METRICS,
    Comparison,
    Description,
    caveats,
    choose_metrics,
    columns_of,
    compare,
    compare_by_each,
    describe,
)
from infdiff.metrics.distances import Gaussian, frechet_distance
from infdiff.metrics.spectrum import radial_spectrum
from tests.metrics.sets import NETWORK, images


def test_a_description_holds_features_their_gaussian_and_spectra(generator):
    whole, told = images(7, generator), []
    (described,) = describe([NETWORK], whole.split(3), told.append)
    assert told == [3, 3, 1]
    torch.testing.assert_close(described.features[:, 0], whole.float().mean((1, 2, 3)))
    torch.testing.assert_close(described.spectra.double(), radial_spectrum(whole), rtol=1e-6, atol=0)
    assert frechet_distance(described.gaussian, Gaussian.fit(described.features)) == pytest.approx(0, abs=1e-6)


def test_equal_sets(generator):
    (described,) = describe([NETWORK], [images(30, generator)])
    results = compare(Comparison(described, described, described.features, described.features), METRICS)
    assert set(results) <= set(LEGEND) | {"kid_std"}
    expected = {"frechet": 0, "precision": 1, "recall": 1, "diversity": 1, "spectrum": 0, "nearest": 0}
    assert {name: results[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert results["memorisation"] == 0.5
    assert results["kid"] < 0  # unbiased: below zero where there is no difference


def test_every_metric_is_told_apart_sets(generator):
    a, b, unseen = (
        describe([NETWORK], [x])[0] for x in (images(30, generator), images(30, generator) // 2, images(9, generator))
    )
    results = compare(Comparison(b, a, a.features, unseen.features), METRICS)
    assert results["frechet"] > 1000
    assert results["kid"] > 1
    assert results["precision"] < 0.5
    assert results["diversity"] < 0.9
    assert results["spectrum"] == pytest.approx(20 * np.log10(2), abs=1)
    assert results["nearest"] > 10
    assert results["memorisation"] < 0.2


def test_chosen_metrics_alone(generator):
    (described,) = describe([NETWORK], [images(6, generator)])
    assert set(compare(Comparison(described, described), ["frechet", "memorisation"])) == {"frechet"}
    assert choose_metrics([]) == list(METRICS)
    assert choose_metrics(["kid", "frechet"]) == ["frechet", "kid"]
    with pytest.raises(UserError, match=r"^metrics: fid: choose from frechet, kid"):
        choose_metrics(["kid", "fid"])


def test_fewer_images_than_features_are_warned_of():
    network = dataclasses.replace(NETWORK, dimension=100)
    lines = caveats(network, {"compared images": 100, "real images": 101})
    assert len(lines) == 1
    assert "100 compared images" in lines[0]


def test_described_of_parts(generator):
    (described,) = describe([NETWORK], [images(10, generator)])
    half = Description.of(described.features[::2], described.spectra[::2])
    torch.testing.assert_close(half.gaussian.mean, described.features[::2].double().mean(0))


def test_several_networks_give_the_numbers_of_each_alone(generator):
    """Columns of the first are plain, the others name it; what does not depend on features is there once."""
    second = dataclasses.replace(NETWORK, name="means", extract=lambda x: x.float().mean((2, 3)), dimension=3)
    networks = [NETWORK, second]
    seen = []
    a = describe(networks, images(12, generator).split(5), seen.append)
    b = describe(networks, [images(12, generator) // 2])
    assert seen == [5, 5, 2]  # every image is read once
    sets = [Comparison(*pair, pair[1].features, pair[0].features) for pair in zip(a, b, strict=True)]
    found = compare_by_each(networks, sets, list(METRICS))
    alone = [compare(each, METRICS) for each in sets]
    expected = alone[0] | {f"{name} (means)": value for name, value in alone[1].items() if name != "spectrum"}
    assert found == expected
    assert found["frechet (means)"] != found["frechet"]
    assert compare_by_each(networks[:1], sets[:1], ["kid"]) == compare(sets[0], ["kid"])
    # Ordered by metric, each network's in turn.
    assert columns_of([found])[:4] == ["frechet", "frechet (means)", "kid", "kid (means)"]
    assert "kid_std (means)" not in columns_of([found])

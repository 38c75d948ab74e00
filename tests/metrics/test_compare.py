"""Sets compared metric by metric, corruptions of known strength, and cached descriptions."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from infdiff.errors import UserError
from infdiff.evaluation import table
from infdiff.evaluation.cache import cached_description
from infdiff.metrics import corruptions
from infdiff.metrics.compare import LEGEND, METRICS, Comparison, Description, caveats, choose_metrics, compare, describe
from infdiff.metrics.distances import Gaussian, frechet_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.spectrum import radial_spectrum

# A network of two features: the mean and the standard deviation of the pixels.
NETWORK = FeatureNetwork(
    "moments",
    "1",
    2,
    lambda x: torch.stack([x.float().mean((1, 2, 3)), x.float().std((1, 2, 3))], 1),
    torch.device("cpu"),
)


def images(count, generator, size=(16, 16)):
    spread = torch.rand(count, 1, 1, 1, generator=generator)
    values = 128 + 100 * spread * torch.randn(count, 3, *size, generator=generator)
    return values.clamp(0, 255).to(torch.uint8)


def test_a_description_holds_features_their_gaussian_and_spectra(generator):
    whole, told = images(7, generator), []
    described = describe(NETWORK, whole.split(3), told.append)
    assert told == [3, 3, 1]
    torch.testing.assert_close(described.features[:, 0], whole.float().mean((1, 2, 3)))
    torch.testing.assert_close(described.spectra.double(), radial_spectrum(whole), rtol=1e-6, atol=0)
    assert frechet_distance(described.gaussian, Gaussian.fit(described.features)) == pytest.approx(0, abs=1e-6)


def test_equal_sets(generator):
    described = describe(NETWORK, [images(30, generator)])
    results = compare(Comparison(described, described, described.features, described.features), METRICS)
    assert set(results) <= set(LEGEND) | {"kid_std"}
    expected = {"frechet": 0, "precision": 1, "recall": 1, "diversity": 1, "spectrum": 0, "nearest": 0}
    assert {name: results[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert results["memorisation"] == 0.5
    assert results["kid"] < 0  # unbiased: below zero where there is no difference


def test_every_metric_is_told_apart_sets(generator):
    a, b, unseen = (
        describe(NETWORK, [x]) for x in (images(30, generator), images(30, generator) // 2, images(9, generator))
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
    described = describe(NETWORK, [images(6, generator)])
    assert set(compare(Comparison(described, described), ["frechet", "memorisation"])) == {"frechet"}
    assert choose_metrics([]) == list(METRICS)
    assert choose_metrics(["kid", "frechet"]) == ["frechet", "kid"]
    with pytest.raises(UserError, match=r"^metrics: fid: choose from frechet, kid"):
        choose_metrics(["kid", "fid"])


def test_fewer_images_than_features_are_warned_of():
    network = dataclasses.replace(NETWORK, dimension=100)
    lines = caveats(network, {"compared": 100, "real": 101})
    assert len(lines) == 1
    assert "100 compared images" in lines[0]


def test_blur_is_pillows_and_a_constant_stays(generator):
    smooth = corruptions.blur(images(1, generator, (24, 20)))
    picture = Image.fromarray(images(1, torch.Generator().manual_seed(0), (24, 20))[0].permute(1, 2, 0).numpy())
    expected = np.asarray(picture.filter(ImageFilter.GaussianBlur(1))).astype(int)
    # Pillow's is an approximation by boxes.
    assert np.abs(smooth[0].permute(1, 2, 0).numpy().astype(int) - expected)[4:-4, 4:-4].mean() < 3
    flat = torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)
    assert all((function(flat) == 77).all() for name, function in corruptions.CORRUPTIONS.items() if name != "noise")


def test_bicubic_corruption_is_pillows(generator):
    image = images(1, generator, (32, 32))
    picture = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    small = picture.resize((8, 8), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC)
    found = corruptions.down_and_up(image, 4)[0].permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - np.asarray(small))
    # Pillow rounds after each of its four passes.
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_noise_is_new_for_every_batch_and_the_same_again(generator):
    first, second = images(64, generator, (32, 32)), images(64, generator, (32, 32))
    a, b = corruptions.noise(first), corruptions.noise(second)
    assert torch.equal(a, corruptions.noise(first))
    assert (a == b).float().mean() < 0.01
    assert a.float().mean() == pytest.approx(127.5, abs=1)
    assert a.float().var() == pytest.approx((256**2 - 1) / 12, rel=0.01)


def test_stronger_corruption_is_further_away(generator):
    real = torch.nn.functional.interpolate(images(60, generator, (8, 8)).float(), (32, 32), mode="bilinear").to(
        torch.uint8
    )
    true = describe(NETWORK, [real])
    spectra = [
        compare(Comparison(describe(NETWORK, [function(real)]), true), ["spectrum"])["spectrum"]
        for name, function in corruptions.CORRUPTIONS.items()
        if name.startswith("bicubic")
    ]
    assert 0 < spectra[0] < spectra[1] < spectra[2]


def test_descriptions_are_cached_by_their_key(generator, tmp_path):
    made = []

    def make():
        made.append(1)
        return describe(NETWORK, [images(40, generator)])

    first = cached_description(("a", (8, 8)), make, tmp_path)
    again = cached_description(("a", (8, 8)), make, tmp_path)
    assert len(made) == 1
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.spectra, again.spectra)
    assert torch.equal(first.gaussian.root, again.gaussian.root)
    assert (first.gaussian.count, again.gaussian.count) == (40, 40)
    for key in (("b", (8, 8)), ("a", (8, 9))):
        cached_description(key, make, tmp_path)
    assert len(made) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_replaced_and_a_closed_folder_is_ignored(generator, tmp_path):
    described = describe(NETWORK, [images(6, generator)])
    cached_description((1,), lambda: described, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert cached_description((1,), lambda: described, tmp_path) is described
    assert torch.equal(cached_description((1,), pytest.fail, tmp_path).features, described.features)
    (tmp_path / "file").write_text("")
    assert cached_description((2,), lambda: described, tmp_path / "file") is described


def test_the_table_has_columns_for_what_there_is():
    rows = [
        {"what": "images", "size": "64", "at": "64", "images": 9, "frechet": 12.3456, "broken": [3, 4]},
        {"what": "images", "size": "128", "at": "96", "images": 9, "kid": float("nan")},
    ]
    lines = table.as_text(rows, ["few images: " + "so very few " * 20]).splitlines()
    assert lines[0].split() == ["size", "at", "images", "broken", "frechet", "kid"]
    assert lines[1].split() == ["64", "64", "9", "2", "12.35"]
    assert lines[2].split() == ["128", "96", "9", "nan"]
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("warning: few images") for line in lines)


def test_described_of_parts(generator):
    described = describe(NETWORK, [images(10, generator)])
    half = Description.of(described.features[::2], described.spectra[::2])
    assert half.gaussian.count == 5
    torch.testing.assert_close(half.gaussian.mean, described.features[::2].double().mean(0))

"""Statistics of fields, against scipy, loops and closed forms of Gaussians; with pixels that are missing."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch

from infdiff.metrics.compare_fields import FIELD_METRICS, compare_fields, spectrum_bands
from infdiff.metrics.fields import (
    PATCH,
    default_distances,
    describe_fields,
    energy_distance,
    relative_errors,
    wasserstein_distance,
)
from infdiff.metrics.spectrum import channel_spectra, radial_spectrum


def fields(count, generator, size=(20, 24), channels=2):
    """Correlated, skewed values of very different size and place."""
    noise = torch.randn(count, channels, *size, generator=generator)
    noise[:, 1:] += 0.5 * noise[:, :1]
    return torch.stack([noise[:, 0].exp(), 1e5 + 100 * noise[:, 1]], dim=1)


def with_holes(values, generator):
    holes = torch.rand(values.shape[0], 1, *values.shape[2:], generator=generator) < 0.2
    holes[: len(values) // 2] = False
    return torch.where(holes, torch.nan, values)


def described(values, distances=(1, 2, 5)):
    return describe_fields(values.split(3), len(values), distances)


def test_moments_are_those_of_known_pixels_by_scipy(generator):
    values = with_holes(fields(8, generator), generator)
    found = described(values)
    known = values.double().numpy().transpose(1, 0, 2, 3).reshape(2, -1)
    known = known[:, ~np.isnan(known[0])]
    np.testing.assert_allclose(found.mean, known.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, known.std(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.skewness, scipy.stats.skew(known, axis=1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.correlation, np.corrcoef(known), rtol=1e-9)
    assert (found.count, found.complete) == (8, 4)
    # All values are kept while they are few.
    np.testing.assert_array_equal(found.values, np.sort(known, axis=1).astype(np.float32))


def test_wasserstein_distance_is_that_of_scipy():
    random = np.random.default_rng(0)
    for a, b in [(random.normal(size=50), random.normal(2, 3, 71)), (random.integers(0, 4, 40), np.full(7, 2.5))]:
        found = wasserstein_distance(*(torch.from_numpy(np.sort(one).astype(float)) for one in (a, b)))
        assert found == pytest.approx(scipy.stats.wasserstein_distance(a, b), rel=1e-12)


def test_wasserstein_distance_of_gaussians():
    """Of N(0, 1) and N(0, s^2) it is |s - 1| E|Z|; of a shifted one the shift."""
    quantiles = torch.from_numpy(scipy.stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000))
    assert wasserstein_distance(quantiles, 2 * quantiles) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-3)
    assert wasserstein_distance(quantiles, quantiles + 0.3) == pytest.approx(0.3, rel=1e-9)


def test_variogram_is_a_loop_over_known_pairs(generator):
    values = with_holes(fields(4, generator, (7, 9)), generator)
    found = described(values, (1, 3))
    for place, distance in enumerate((1, 3)):
        for channel in range(2):
            squares = []
            for field in values[:, channel].double().numpy():
                for i in range(7):
                    for j in range(9):
                        for a, b in ((i + distance, j), (i, j + distance)):
                            if a < 7 and b < 9 and not np.isnan(field[i, j]) and not np.isnan(field[a, b]):
                                squares.append((field[a, b] - field[i, j]) ** 2)
            assert found.variogram[channel, place] == pytest.approx(np.mean(squares) / 2, rel=1e-9)


def test_variogram_of_a_moving_average_of_noise(generator):
    """The mean of n pixels of white noise in a row: its variogram is min(d, n) / n^2 along the row, 1 / n across."""
    noise = torch.randn(300, 1, 32, 36, generator=generator)
    values = noise.unfold(3, 4, 1).mean(dim=-1)
    found = described(values, (1, 2, 8)).variogram[0]
    # Rows have fewer pairs than columns: the mean over both is weighted by them.
    height, width = values.shape[2:]
    for distance, gamma in zip((1, 2, 8), found.tolist(), strict=True):
        down, across = (height - distance) * width, height * (width - distance)
        wanted = (down * (1 / 4) + across * (min(distance, 4) / 16)) / (down + across)
        assert gamma == pytest.approx(wanted, rel=0.02)


def test_distances_with_no_known_pair_are_left_out(generator):
    values = torch.full((6, 1, 16, 16), torch.nan)
    values[:, :, ::8, ::8] = torch.randn(6, 1, 2, 2, generator=generator)
    found = described(values, (1, 8))
    assert found.variogram[0].isnan().tolist() == [True, False]
    channels, joint = compare_fields(found, found, FIELD_METRICS)
    assert channels[0]["variogram_errors"] == {"8": 0.0}
    assert "spectrum_error" not in channels[0]  # no field is complete
    assert joint == {}  # no correlation of one channel, and no patch is complete


def test_energy_distance_is_the_definition():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(30, 5)), random.normal(0.4, 1, size=(41, 5))
    between = scipy.spatial.distance.cdist(x, y).mean()
    within = [scipy.spatial.distance.pdist(one).mean() for one in (x, y)]
    found = energy_distance(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(2 * between - sum(within), rel=1e-9)


def test_energy_distance_of_gaussians(generator):
    """Two normal distributions a shift m apart: 2 E|X - Y| - 2 E|X - X'|, from the folded normal distribution."""
    x, y = torch.randn(6000, 1, generator=generator), torch.randn(6000, 1, generator=generator) + 1.5
    spread = math.sqrt(2)
    folded = spread * math.sqrt(2 / math.pi) * math.exp(-(1.5**2) / 4) + 1.5 * math.erf(1.5 / 2)
    assert energy_distance(x, y) == pytest.approx(2 * folded - 2 * 2 / math.sqrt(math.pi), abs=0.04)
    assert abs(energy_distance(x, y - 1.5)) < 0.01


def test_spectra_of_channels_are_those_of_images_of_them(generator):
    """White noise has its variance in each ring; the mean over channels is the spectrum of images."""
    values = fields(200, generator)
    spectra = channel_spectra(values)
    torch.testing.assert_close(spectra.mean(dim=1), radial_spectrum(values), rtol=1e-9, atol=0)
    torch.testing.assert_close(spectra[:, :1], channel_spectra(values[:, :1]))
    noise = 100 * math.sqrt(1.25)
    assert float(spectra[:, 1].mean()) == pytest.approx(noise**2, rel=0.02)


def test_spectrum_is_of_complete_fields_alone(generator):
    values = with_holes(fields(8, generator), generator)
    torch.testing.assert_close(described(values).spectrum, channel_spectra(values[:4]).mean(dim=0))


def test_bands_cover_all_rings_up_to_half_of_nyquist():
    assert spectrum_bands(31) == [(2, 2), (3, 3), (4, 5), (6, 7), (8, 11), (12, 15), (16, 16)]
    for rings in range(1, 200):
        covered = [ring for first, last in spectrum_bands(rings) for ring in range(first, last + 1)]
        assert covered == list(range(2, max(2, (rings + 1) // 2) + 1))


def test_a_known_change_of_a_band_is_its_error(generator):
    """Values times 1.1 have 1.21 times the power, and a variogram 1.21 times as large."""
    values = fields(20, generator)
    (_, second), joint = compare_fields(described(1.1 * values), described(values), FIELD_METRICS)
    assert second["spectrum_error"] == pytest.approx(0.21, rel=1e-3)
    assert list(second["spectrum_bands"].values()) == pytest.approx([0.21] * len(second["spectrum_bands"]), rel=1e-3)
    assert second["variogram_error"] == pytest.approx(0.21, rel=1e-3)
    assert joint["correlation_error"] == pytest.approx(0, abs=1e-6)
    assert second["wasserstein"] == pytest.approx(1e4, rel=1e-2)


def test_a_set_with_itself_has_no_distance(generator):
    found = described(fields(20, generator))
    channels, joint = compare_fields(found, found, FIELD_METRICS)
    for results in channels:
        assert results["spectrum_error"] == results["wasserstein"] == results["variogram_error"] == 0
        assert results["skewness"] == results["real_skewness"]
    assert joint["correlation_error"] == 0
    # Each patch is at no distance from itself in the other set, which is no pair within its own.
    patches = ((found.patches - found.mean.view(-1, 1, 1)) / found.std.view(-1, 1, 1)).flatten(1).numpy()
    within = scipy.spatial.distance.pdist(patches).mean()
    assert joint["energy"] == pytest.approx(-2 * within / len(patches), rel=1e-4)
    assert compare_fields(found, found, ["moments"]) == (
        [
            {name: results[name] for name in results if "mean" in name or "std" in name or "skew" in name}
            for results in channels
        ],
        {},
    )


def test_patches_have_no_missing_pixel(generator):
    values = with_holes(fields(12, generator), generator)
    found = described(values).patches
    assert found.shape[1:] == (2, PATCH, PATCH)
    assert len(found) > 0
    assert found.isfinite().all()


def test_relative_errors():
    found = relative_errors(torch.tensor([1.0, 0.0, 3.0, 1.0]), torch.tensor([2.0, 0.0, 2.0, 0.0]))
    assert found.tolist() == [0.5, 0.0, 0.5, math.inf]


def test_distances_and_nothing_known(generator):
    assert default_distances((64, 100)) == (1, 2, 4, 8, 16, 32)
    assert default_distances((11, 20)) == (1, 2, 4)
    with pytest.raises(ValueError, match="two known pixels"):
        described(torch.full((3, 1, 8, 8), torch.nan))

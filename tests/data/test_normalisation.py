"""Maps between units and what networks see: fitted to all values, rising, invertible, without clipping."""

import numpy as np
import pytest

from infdiff.data.normalisation import NORMALISATIONS, Normalisation, Statistics

RANDOM = np.random.default_rng(0)
# Rain, most of it none, and pressures.
VALUES = np.stack([np.where(RANDOM.random(4000) < 0.6, 0, RANDOM.exponential(3, 4000)), RANDOM.normal(1e5, 900, 4000)])


def fitted(kind, values=VALUES, parts=7):
    return Normalisation.fitted(
        kind, Statistics.merge(Statistics.of(v, 10_000) for v in np.array_split(values, parts, 1))
    )


def test_statistics_of_parts_are_those_of_all():
    found = Statistics.merge(Statistics.of(v, 50) for v in np.array_split(VALUES, 9, axis=1))
    assert found.count == 4000
    np.testing.assert_allclose(found.mean, VALUES.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.squares / found.count, VALUES.var(axis=1), rtol=1e-10)
    assert (found.low == VALUES.min(axis=1)).all()
    assert (found.high == VALUES.max(axis=1)).all()
    assert found.sample.shape == (2, 450)


def test_values_without_normalisation_stay():
    assert (fitted("none").apply(VALUES) == VALUES.astype(np.float32)).all()


def test_the_lowest_and_the_highest_go_to_the_ends():
    out = fitted("minmax").apply(VALUES)
    assert (out.min(axis=1) == -1).all()
    assert (out.max(axis=1) == 1).all()
    np.testing.assert_allclose(out[0], 2 * VALUES[0] / VALUES[0].max() - 1, atol=1e-6)


def test_mean_and_standard_deviation():
    out = fitted("meanstd").apply(VALUES).astype(np.float64)
    np.testing.assert_allclose(out.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axis=1), 0.5, atol=1e-6)


def test_quantiles_are_even_and_equal_values_have_their_middle_rank():
    out = fitted("quantile").apply(VALUES)
    shares = np.histogram(out[1], 8, (-1, 1))[0] / 4000
    np.testing.assert_allclose(shares, 1 / 8, atol=0.01)
    dry = (VALUES[0] == 0).mean()
    assert out[0][VALUES[0] == 0].max() == pytest.approx(dry - 1, abs=0.01)
    # The ranks of the wet ones are even, too, from the second of 256 knots on, which 16 values are apart.
    wet = np.sort(out[0][VALUES[0] > 0])
    np.testing.assert_allclose(wet[16:], np.linspace(2 * dry - 1, 1, len(wet))[16:], atol=0.02)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_every_map_rises_and_goes_back_beyond_its_ends_too(kind):
    normalisation = fitted(kind)
    span = VALUES.max(axis=1) - VALUES.min(axis=1)
    units = np.linspace(VALUES.min(axis=1) - span, VALUES.max(axis=1) + span, 3001).T
    out = normalisation.apply(units)
    assert (np.diff(out, axis=1) >= 0).all()
    assert (np.diff(out[:, ::100], axis=1) > 0).all()
    np.testing.assert_allclose(
        normalisation.invert(out), units, rtol=1e-5, atol=1e-4 * span.max() if kind != "none" else 0
    )
    again = Normalisation.from_record(normalisation.record())
    assert again == normalisation


def test_missing_values_stay_missing():
    for kind in NORMALISATIONS:
        assert np.isnan(fitted(kind).apply(np.array([[np.nan, 1], [1e5, np.nan]]))).tolist() == [
            [True, False],
            [False, True],
        ]


@pytest.mark.parametrize("kind", ["minmax", "meanstd", "quantile"])
def test_a_channel_of_one_value_goes_to_0(kind):
    normalisation = fitted(kind, np.full((1, 50), 7.0))
    assert normalisation.apply(np.array([[7.0, 8.0]])).tolist() == [[0, 1]]
    assert normalisation.invert(np.array([[0.0, 1.0]])).tolist() == [[7, 8]]

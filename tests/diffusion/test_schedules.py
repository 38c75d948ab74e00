"""Noise schedules and sampling times."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.schedules import SCHEDULES, alpha_bar, sampling_times


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_fall_from_one(name):
    bar = alpha_bar(name, 1000)
    assert bar.shape == (1001,)
    assert bar[0] == 1
    assert (bar.diff() < 0).all()
    assert 0 < bar[-1] < 1e-3


def test_cosine_is_the_published_formula():
    bar = alpha_bar("cosine", 1000)

    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (1, 250, 500, 990):
        assert bar[t].item() == pytest.approx(f(t) / f(0), rel=1e-9)


def test_constant_is_a_power():
    assert alpha_bar("constant", 1000)[10].item() == pytest.approx(0.992**10)


def test_linear_runs_between_the_published_betas():
    bar = alpha_bar("linear", 1000)
    assert 1 - bar[1].item() == pytest.approx(1e-4)
    assert 1 - (bar[1000] / bar[999]).item() == pytest.approx(0.02)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_sampling_times_run_from_all_noise_to_none(steps):
    times = sampling_times(1000, steps)
    assert times[0] == 1000
    assert times[-1] == 0
    assert len(times) == steps + 1
    assert all(a > b for a, b in itertools.pairwise(times))


def test_shift_multiplies_signal_over_noise():
    plain, shifted = alpha_bar("cosine", 1000), alpha_bar("cosine", 1000, shift=0.2)
    ratio = (shifted / (1 - shifted) / (plain / (1 - plain)))[1:]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.04))
    assert shifted[0] == 1


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="shift"):
        alpha_bar("cosine", 10, shift=0.0)

    with pytest.raises(ValueError, match="sigmoid"):
        alpha_bar("sigmoid", 10)
    with pytest.raises(ValueError, match="1001"):
        sampling_times(1000, 1001)
    assert torch.equal(alpha_bar("cosine", 4), alpha_bar("cosine", 4))

"""Noise schedules, and where sampling steps lie."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.schedules import (
    SCHEDULES,
    SPACINGS,
    AlphaBar,
    alpha_bar,
    log_times,
    noise_times,
    sampling_times,
    sigma_steps,
)


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


def test_the_table_is_the_schedule_in_float32():
    bars, t = AlphaBar("cosine", 10, shift=0.5), torch.tensor([0, 3])
    assert torch.equal(bars.values, alpha_bar("cosine", 10, shift=0.5).float())
    assert torch.equal(bars.at(t, torch.zeros(2, 5, 7)), bars.values[t].view(2, 1, 1))
    signal, noise = bars.coefficients(t, torch.zeros(2, 5))
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(2, 1))
    assert signal[0] == 1


def test_noise_levels_are_even_in_their_seventh_root():
    levels = sigma_steps(18)
    assert len(levels) == 19
    assert (levels[0], levels[-2], levels[-1]) == (pytest.approx(80), pytest.approx(0.002), 0.0)
    roots = torch.tensor(levels[:-1], dtype=torch.float64) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17))
    assert sigma_steps(1) == [pytest.approx(80), 0.0]
    # rho = 1: even steps.
    assert sigma_steps(3, 1.0, 5.0, 1.0) == pytest.approx([5, 3, 1, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "steps"), ((4, 0.0), "sigma_min=0"), ((4, 3.0, 2.0), "sigma_max=2"), ((4, 0.1, 2.0, 0.0), "rho=0")],
)
def test_bad_noise_levels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sigma_steps(*arguments)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shift", [1.0, 0.2])
@pytest.mark.parametrize("steps", [1, 2, 10, 50, 400, 1000])
def test_every_spacing_descends_to_zero_in_as_many_steps_as_asked_for(spacing, shift, steps):
    times = SPACINGS[spacing](alpha_bar("cosine", 1000, shift), steps)
    assert len(times) == steps + 1
    assert times[0] <= 1000
    assert times[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(times))


def test_steps_by_noise_are_even_in_its_seventh_root():
    """sigma = noise over signal: from 80 or a little less, to that of time 1."""
    bar = alpha_bar("cosine", 100_000)
    times = noise_times(bar, 20)
    sigma = ((1 - bar) / bar).sqrt()
    roots = (sigma[times[:-1]] ** (1 / 7)).diff()
    torch.testing.assert_close(roots, roots.mean().expand(19), rtol=0.02, atol=0)
    assert sigma[times[0]].item() == pytest.approx(80, rel=0.01)
    assert times[-2] == 1


def test_steps_by_the_logarithm_of_the_noise_are_even_in_it():
    """From 20 or a little less, to that of time 1."""
    bar = alpha_bar("cosine", 100_000, 0.2)
    times = log_times(bar, 12)
    sigma = ((1 - bar) / bar).sqrt()
    steps = sigma[times[:-1]].log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(11), rtol=0.02, atol=0)
    assert sigma[times[0]].item() == pytest.approx(20, rel=0.01)
    assert times[-2] == 1


def test_steps_by_noise_are_refused_where_the_schedule_has_fewer_times():
    with pytest.raises(ValueError, match="11 sampling steps: want 1 to 10"):
        noise_times(alpha_bar("cosine", 10), 11)
    assert noise_times(alpha_bar("cosine", 10), 10) == list(range(10, -1, -1))

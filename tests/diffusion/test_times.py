"""How training draws the time t."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.times import LognormalTimes, uniform_times

COUNT = 200_000


def process(**options):
    return MollifiedDiffusion(Mollifier(1.0, (8, 8)), target="v", **options)


def shares(draw, steps):
    drawn = draw(COUNT, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 1
    assert drawn.max() <= steps
    return torch.bincount(drawn, minlength=steps + 1)[1:] / COUNT


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_uniform_times_are_all_alike():
    torch.testing.assert_close(shares(uniform_times(10), 10), torch.full((10,), 0.1), rtol=0, atol=0.004)


@pytest.mark.parametrize(("mean", "std", "shift"), [(-0.5, 1.2, 0.2), (0.3, 0.4, 1.0), (-3.0, 2.5, 1.0)])
def test_lognormal_times_have_the_density_of_their_noise_levels(mean, std, shift):
    """The share of a time is that of the normal law between the middles to the times next to it."""
    levels = process(steps=40, shift=shift).log_ratio()
    found = shares(LognormalTimes(levels, mean, std), 40)
    edges = [-math.inf, *((levels[1:-1] + levels[2:]) / 2).tolist(), math.inf]
    expected = [normal_cdf((b - mean) / std) - normal_cdf((a - mean) / std) for a, b in itertools.pairwise(edges)]
    # Five standard deviations of a share of this many draws.
    for share, wanted in zip(found.tolist(), expected, strict=True):
        assert share == pytest.approx(wanted, abs=5 * (wanted * (1 - wanted) / COUNT) ** 0.5 + 1e-6)


def test_the_level_of_a_time_is_noise_over_signal_in_their_own_deviations():
    p = process(steps=100, data_std=0.7)
    bar = p.alpha_bar[37].item()
    noise, signal = math.sqrt((1 - bar) / (4 * math.pi)), 0.7 * math.sqrt(bar)
    assert p.log_ratio()[37].item() == pytest.approx(math.log(noise / signal), rel=1e-4)


def test_draws_are_the_generators_alone():
    draw = LognormalTimes(process().log_ratio(), -0.5, 1.2)
    one, other, third = (draw(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@pytest.mark.parametrize(("mean", "low", "high"), [(-0.5, 0.99, 1.0), (40.0, 0.0, 0.01), (-40.0, 0.0, 0.01)])
def test_how_many_of_the_levels_the_schedule_reaches(mean, low, high):
    assert low <= LognormalTimes(process().log_ratio(), mean, 1.2).reached() <= high

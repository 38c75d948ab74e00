"""Heun's method against closed-form Gaussian denoisers, and step by step."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.samplers import heun
from infdiff.diffusion.schedules import sigma_steps

MEAN = torch.tensor([0.4, -0.2], dtype=torch.float64)
# Data: rotated, one wide and one narrow axis.
AXES = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
COVARIANCE = AXES @ torch.diag(torch.tensor([0.3, 0.01], dtype=torch.float64)) @ AXES.mT
WHITE = torch.eye(2, dtype=torch.float64)
# As mollified noise: variance 1 at each point, neighbours alike; its axes are not the data's.
ALIKE = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=torch.float64)


def exact_denoiser(of_noise):
    """E[y | x] for Gaussian data and noise of covariance sigma^2 of_noise."""

    def denoise(x, sigma):
        gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * of_noise)
        return MEAN + (x - MEAN) @ gain.mT

    return denoise


def sample(steps, of_noise=WHITE, count=40_000, **options):
    generator, root = torch.Generator().manual_seed(0), torch.linalg.cholesky(of_noise)

    def noise():
        return torch.randn(count, 2, generator=generator, dtype=torch.float64) @ root.mT

    return heun(exact_denoiser(of_noise), noise(), sigma_steps(steps), noise=noise, **options)


@pytest.mark.parametrize("of_noise", [WHITE, ALIKE], ids=["white", "mollified"])
@pytest.mark.parametrize(
    ("steps", "options"),
    [(128, {}), (256, {"s_churn": 40.0}), (256, {"s_churn": 40.0, "s_min": 0.05, "s_max": 50.0})],
    ids=["deterministic", "churn", "churn_between"],
)
def test_mean_and_covariance_are_right(of_noise, steps, options):
    x = sample(steps, of_noise, **options)
    torch.testing.assert_close(x.mean(dim=0), MEAN, rtol=0, atol=0.01)
    torch.testing.assert_close(torch.cov(x.mT), COVARIANCE, rtol=0, atol=0.006)
    narrow = ((x - MEAN) @ AXES)[:, 1].var().item()
    assert narrow == pytest.approx(0.01, rel=0.03)


def test_the_deterministic_sampler_follows_the_exact_path():
    """With white noise, (x - mean) / sqrt(variance + sigma^2) is constant on each of the data's axes.

    The published 18 steps end a twentieth to a tenth too far out; each doubling divides that by four.
    """
    start = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variance = torch.tensor([0.3, 0.01], dtype=torch.float64)
    ratio = (variance / (variance + 80.0**2)).sqrt()
    exact = MEAN + ((80.0 * start - MEAN) @ AXES * ratio) @ AXES.mT

    def error(steps):
        out = heun(exact_denoiser(WHITE), start, sigma_steps(steps), noise=lambda: start)
        return ((out - exact).norm() / (exact - MEAN).norm()).item()

    assert 0.05 < error(18) < 0.1
    assert error(128) < 1e-3
    assert error(256) == pytest.approx(error(128) / 4, rel=0.1), "second order"


def test_noise_is_added_as_algorithm_2_says():
    x, fresh = torch.tensor([[0.3, 0.9]]), torch.tensor([[0.2, -0.1]])
    seen = []

    def denoise(x, sigma):
        seen.append((sigma, x))
        return 0.5 * x

    levels = sigma_steps(4)
    heun(denoise, x, levels, noise=lambda: fresh, s_churn=1.0, s_min=1.0, s_max=10.0, s_noise=1.1)
    state, evaluations = levels[0] * x, iter(seen)
    for sigma, following in itertools.pairwise(levels):
        raised = sigma
        if 1.0 <= sigma <= 10.0:
            raised = sigma * 1.25  # gamma = 1 / 4
            state = state + math.sqrt(raised**2 - sigma**2) * 1.1 * fresh
        level, where = next(evaluations)
        assert level == pytest.approx(raised)
        torch.testing.assert_close(where, state)
        slope = 0.5 * state / raised
        if following:
            guess = state + (following - raised) * slope
            level, where = next(evaluations)
            assert level == pytest.approx(following)
            torch.testing.assert_close(where, guess)
            slope = (slope + 0.5 * guess / following) / 2
        state = state + (following - raised) * slope
    assert len(seen) == 2 * 4 - 1
    assert sum(1.0 <= level <= 10.0 for level in levels) == 1, "with levels on either side of the range"
    seen.clear()
    heun(denoise, x, levels, noise=lambda: fresh, s_churn=1000.0)
    assert seen[0][0] == pytest.approx(80 * math.sqrt(2)), "no more than doubles the variance"


def test_the_sampler_keeps_the_contract():
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before, levels = x.clone(), []

    def denoise(x, sigma):
        levels.append(sigma)
        return torch.zeros_like(x)

    def no_noise():
        raise AssertionError("the deterministic sampler draws nothing")

    out = heun(denoise, x, sigma_steps(18), noise=no_noise)
    assert torch.equal(x, before), "the input was changed in place"
    assert len(levels) == 35, "18 steps of two evaluations each but for the last"
    assert levels[0] == pytest.approx(80)
    assert levels[-1] == pytest.approx(0.002)
    torch.testing.assert_close(out, torch.zeros(3, 2), rtol=0, atol=1e-6)

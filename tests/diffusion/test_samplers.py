"""Every sampler against a closed-form Gaussian denoiser: mean and covariance of what comes out."""

import inspect
import itertools

import pytest
import torch

from infdiff.diffusion import samplers
from infdiff.diffusion.schedules import alpha_bar

BAR = alpha_bar("cosine", 1000)
MEAN = torch.tensor([0.4, -0.2])
# Data covariance: rotated, with one wide and one narrow axis.
AXES = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
DATA_VARIANCE = torch.tensor([0.5, 0.02])
# T xi has variance 0.08 on each axis here: the samplers must not assume 1.
NOISE_VARIANCE = 0.08


def exact_denoiser(x, t):
    """E[T x_0 | x_t] for Gaussian data, in the data's axes."""
    bar = BAR[t].item()
    y = (x - bar**0.5 * MEAN) @ AXES
    gain = bar**0.5 * DATA_VARIANCE / (bar * DATA_VARIANCE + (1 - bar) * NOISE_VARIANCE)
    return MEAN + (y * gain) @ AXES.mT


def run(name, steps, count=40_000, **options):
    generator = torch.Generator().manual_seed(0)

    def noise():
        return NOISE_VARIANCE**0.5 * torch.randn(count, 2, generator=generator)

    return samplers.SAMPLERS[name](exact_denoiser, noise(), steps, alpha_bar=BAR, noise=noise, **options)


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [("ddim", 200, {}), ("ddim", 200, {"eta": 0.5}), ("ddim", 300, {"eta": 1.0}), ("ddpm", 500, {}), ("dpm++", 50, {})],
)
def test_mean_and_covariance_are_right(name, steps, options):
    x = run(name, steps, **options)
    torch.testing.assert_close(x.mean(dim=0), MEAN, rtol=0, atol=0.01)
    covariance = torch.cov(x.mT)
    expected = AXES @ torch.diag(DATA_VARIANCE) @ AXES.mT
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.02)
    narrow = (x @ AXES)[:, 1].var().item()
    assert narrow == pytest.approx(0.02, rel=0.1)


def test_the_second_order_solver_needs_fewer_steps():
    def error(name):
        start = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) * NOISE_VARIANCE**0.5
        go = samplers.SAMPLERS[name]
        exact = go(exact_denoiser, start, 1000, alpha_bar=BAR, noise=lambda: start)
        return (go(exact_denoiser, start, 15, alpha_bar=BAR, noise=lambda: start) - exact).abs().mean()

    assert error("dpm++") < error("ddim") / 2


def test_ddpm_moves_by_the_posterior_of_equation_10():
    # One step from t to s with fixed noise: mean and spread of the posterior, from the process itself.
    from infdiff.diffusion.mollified import MollifiedDiffusion
    from infdiff.diffusion.mollifier import Mollifier

    process = MollifiedDiffusion(Mollifier(1.0, (8, 8)), target="v")
    x = torch.tensor([[0.3, 0.9]])
    fixed = torch.tensor([[0.2, -0.1]])
    seen = []

    def denoise(x, t):
        seen.append((t, x))
        return 0.5 * x

    samplers.ddpm(denoise, x, 4, alpha_bar=BAR, noise=lambda: fixed)
    for (t, before), (s, after) in itertools.pairwise(seen):
        mean, spread = process.posterior(before, 0.5 * before, torch.tensor([t]), torch.tensor([s]))
        torch.testing.assert_close(after, mean + spread * fixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_keeps_the_contract(name):
    assert list(inspect.signature(samplers.SAMPLERS[name]).parameters)[:3] == ["denoise", "x", "steps"]
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before, calls = x.clone(), []

    def denoise(x, t):
        calls.append(t)
        return torch.zeros_like(x)

    out = samplers.SAMPLERS[name](denoise, x, 5, alpha_bar=BAR, noise=lambda: torch.zeros(3, 2))
    assert torch.equal(x, before), "the input was changed in place"
    assert calls == [1000, 800, 600, 400, 200], "one evaluation a step, times descending"
    torch.testing.assert_close(out, torch.zeros(3, 2), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="steps"):
        samplers.SAMPLERS[name](denoise, x, 0, alpha_bar=BAR, noise=lambda: x)

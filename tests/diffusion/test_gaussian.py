"""Gaussian diffusion of vectors: with the exact denoiser of a Gaussian, sampling gives that Gaussian."""

import pytest
import torch

from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.samplers import ddim
from infdiff.diffusion.schedules import sampling_times


def test_states_have_the_schedules_mean_and_variance(generator):
    process = GaussianDiffusion()
    x0 = torch.full((20_000, 1), 2.0)
    t = torch.full((20_000,), 100)
    x = process.state(x0, torch.randn(x0.shape, generator=generator), t)
    bar = (1 - 0.008) ** 100
    assert x.mean() == pytest.approx(2 * bar**0.5, abs=0.02)
    assert x.var() == pytest.approx(1 - bar, rel=0.03)


def test_ddim_draws_the_gaussian_whose_denoiser_it_is_given(generator):
    process = GaussianDiffusion()
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.8, 2.0])

    def network(x, t):
        """The noise expected in x_t."""
        bar = process.alpha_bar[t][:, None]
        x0 = mean + std**2 * bar.sqrt() / (bar * std**2 + 1 - bar) * (x - bar.sqrt() * mean)
        return (x - bar.sqrt() * x0) / (1 - bar).sqrt()

    noise = torch.randn(20_000, 2, generator=generator)
    # The schedule ends with a little signal left: start from the marginal there.
    last = process.alpha_bar[-1]
    start = last.sqrt() * mean + (last * std**2 + 1 - last).sqrt() * noise
    x = ddim(
        process.denoiser(network), start, sampling_times(1000, 250), alpha_bar=process.alpha_bar, noise=lambda: noise
    )
    torch.testing.assert_close(x.mean(dim=0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(x.std(dim=0), std, rtol=0.04, atol=0)

"""Marginals, posterior and targets of the mollified process."""

import pytest
import torch

from infdiff.diffusion.mollified import TARGETS, MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier

SIZE = (16, 16)


def make(target="v", sigma=1.0):
    return MollifiedDiffusion(Mollifier(sigma, SIZE), target=target, data_std=0.7)


def test_state_has_the_marginals_of_equation_9(generator):
    process = make()
    image = torch.full((4000, 1, *SIZE), 0.3)
    t = torch.full((4000,), 400)
    noise = process.mollifier.noise(4000, 1, SIZE, [generator])
    state = process.state(process.mollifier(image), noise, t)
    bar = process.alpha_bar[400].item()
    inner = state[..., 5:-5, 5:-5]
    assert inner.mean().item() == pytest.approx(0.3 * bar**0.5, abs=2e-3)
    assert inner.var().item() == pytest.approx((1 - bar) * process.noise_std**2, rel=0.02)


def test_posterior_is_bayes_rule_of_the_forward_chain():
    # q(x_s | x_t, x_0) from the joint Gaussian of (x_s, x_t) given x_0, in units of T xi's standard deviation.
    process = make()
    bar_s, bar_t = process.alpha_bar[300].double().item(), process.alpha_bar[420].double().item()
    x, x0 = torch.tensor([[0.8]]), torch.tensor([[-0.4]])
    step = (bar_t / bar_s) ** 0.5
    covariance, variance = step * (1 - bar_s), 1 - bar_t
    mean = bar_s**0.5 * -0.4 + covariance / variance * (0.8 - bar_t**0.5 * -0.4)
    spread = (1 - bar_s - covariance**2 / variance) ** 0.5
    got_mean, got_spread = process.posterior(x, x0, torch.tensor([420]), torch.tensor([300]))
    assert got_mean.item() == pytest.approx(mean, rel=1e-5)
    assert got_spread.item() == pytest.approx(spread, rel=1e-5)


def test_posterior_of_neighbouring_times_is_equation_10():
    process = make()
    bar = process.alpha_bar.double()
    t = 200
    beta = 1 - bar[t] / bar[t - 1]
    x, x0 = torch.tensor([[0.5]]), torch.tensor([[0.2]])
    mean = (bar[t - 1].sqrt() * beta * 0.2 + (1 - beta).sqrt() * (1 - bar[t - 1]) * 0.5) / (1 - bar[t])
    got, spread = process.posterior(x, x0, torch.tensor([t]), torch.tensor([t - 1]))
    assert got.item() == pytest.approx(mean.item(), rel=1e-5)
    assert spread.item() ** 2 == pytest.approx(((1 - bar[t - 1]) / (1 - bar[t]) * beta).item(), rel=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("t", [1, 300, 700])
def test_the_exact_target_gives_back_the_mollified_image(target, t, generator):
    process = make(target)
    image = torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1
    white, noise = process.mollifier.noise_pair(2, 3, SIZE, [generator])
    mollified = process.mollifier(image)
    times = torch.full((2,), t)
    state = process.state(mollified, noise, times)
    output = process.training_target(image, white, mollified, noise, times)
    torch.testing.assert_close(process.mollified_image(output, state, times), mollified, rtol=1e-3, atol=1e-3)


def test_unit_variance_of_input_and_v_target(generator):
    process = make("v")
    image = process.data_std * torch.randn(3000, 1, *SIZE, generator=generator)
    noise = process.mollifier.noise(3000, 1, SIZE, [generator])
    for t in (10, 500, 990):
        times = torch.full((3000,), t)
        inner = (..., slice(5, -5), slice(5, -5))
        state = process.network_input(process.state(image, noise, times), times)[inner]
        target = process.training_target(image, noise, image, noise, times)[inner]
        assert state.var().item() == pytest.approx(1, rel=0.03)
        assert target.var().item() == pytest.approx(1, rel=0.03)


def test_v_at_the_ends_is_the_noise_and_the_image(generator):
    process = make("v")
    image, noise = torch.randn(1, 1, *SIZE, generator=generator), torch.randn(1, 1, *SIZE, generator=generator)
    start = process.training_target(image, noise, image, noise, torch.tensor([0]))
    torch.testing.assert_close(start, noise / process.noise_std)
    end = process.training_target(image, noise, image, noise, torch.tensor([1000]))
    # alpha-bar is 2e-9 there: 1e-4 of the noise, at most 4 / 0.28, is left.
    torch.testing.assert_close(end, -image / process.data_std, rtol=0, atol=3e-3)


def test_estimates_are_clipped_to_the_range_of_images():
    process = make("image", sigma=0.0)
    denoise = process.denoiser(lambda x, t: torch.full_like(x, 9.0))
    assert denoise(torch.zeros(1, 1, *SIZE), 500).max() == 1
    assert process.denoiser(lambda x, t: torch.full_like(x, 9.0), clip=False)(torch.zeros(1, 1, *SIZE), 500).max() > 8


def test_unknown_targets_are_named():
    with pytest.raises(ValueError, match="velocity"):
        make("velocity")

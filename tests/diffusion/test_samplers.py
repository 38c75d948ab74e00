"""Every sampler against a closed-form Gaussian denoiser: mean and covariance of what comes out."""

import inspect
import itertools

import pytest
import torch

from infdiff.diffusion.samplers import EDM_SAMPLERS, SAMPLERS, Sampler, ddim, ddpm, heun
from infdiff.diffusion.schedules import alpha_bar, sampling_times, sigma_steps

BAR = alpha_bar("cosine", 1000)
MEAN = torch.tensor([0.4, -0.2])
# Data covariance: rotated, with one wide and one narrow axis.
AXES = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
DATA_VARIANCE = torch.tensor([0.5, 0.02])
# T xi has variance 0.08 on each axis here: the samplers must not assume 1.
NOISE_VARIANCE = 0.08


def exact_denoiser(x, t):
    """E[T x_0 | x_t] for Gaussian data, in the data's axes."""
    bar, mean, axes, variance = BAR[t].item(), MEAN.to(x), AXES.to(x), DATA_VARIANCE.to(x)
    y = (x - bar**0.5 * mean) @ axes
    gain = bar**0.5 * variance / (bar * variance + (1 - bar) * NOISE_VARIANCE)
    return mean + (y * gain) @ axes.mT


def run(name, steps, count=40_000, **options):
    generator = torch.Generator().manual_seed(0)

    def noise():
        return NOISE_VARIANCE**0.5 * torch.randn(count, 2, generator=generator)

    return SAMPLERS[name].run(
        exact_denoiser, noise(), sampling_times(1000, steps), alpha_bar=BAR, noise=noise, **options
    )


GAUSSIAN_RUNS = [
    ("ddim", 200, {}),
    ("ddim", 200, {"eta": 0.5}),
    ("ddim", 300, {"eta": 1.0}),
    ("ddpm", 500, {}),
    ("ddpm", 900, {"variance": "beta"}),
    ("dpm++", 50, {}),
]


def test_every_sampler_is_held_to_the_gaussian():
    assert {name for name, _, _ in GAUSSIAN_RUNS} == set(SAMPLERS)
    assert {entry.run for entry in EDM_SAMPLERS.values()} == {heun}, "and those of EDM in test_heun.py"


@pytest.mark.parametrize(("name", "steps", "options"), GAUSSIAN_RUNS)
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
        out, exact = (
            SAMPLERS[name].run(exact_denoiser, start, sampling_times(1000, steps), alpha_bar=BAR, noise=lambda: start)
            for steps in (15, 1000)
        )
        return (out - exact).abs().mean()

    assert error("dpm++") < error("ddim") / 2


def posterior(x, image, bar_t, bar_s):
    """Eq. 10 between two times s < t: the mean, and the factor of T xi (its standard deviation)."""
    beta = 1 - bar_t / bar_s
    mean = (bar_s**0.5 * beta * image + (bar_t / bar_s) ** 0.5 * (1 - bar_s) * x) / (1 - bar_t)
    return mean, (beta * (1 - bar_s) / (1 - bar_t)) ** 0.5


@pytest.mark.parametrize(("t", "s"), [(420, 300), (200, 199)])
def test_the_posterior_is_bayes_rule_of_the_forward_chain(t, s):
    # q(x_s | x_t, x_0) from the joint Gaussian of (x_s, x_t) given x_0, in units of T xi's standard deviation.
    bar_s, bar_t = BAR[s].item(), BAR[t].item()
    covariance, variance = (bar_t / bar_s) ** 0.5 * (1 - bar_s), 1 - bar_t
    mean = bar_s**0.5 * -0.4 + covariance / variance * (0.8 - bar_t**0.5 * -0.4)
    spread = (1 - bar_s - covariance**2 / variance) ** 0.5
    assert posterior(0.8, -0.4, bar_t, bar_s) == (pytest.approx(mean, rel=1e-12), pytest.approx(spread, rel=1e-9))


def test_ddpm_moves_by_the_posterior_of_equation_10():
    x = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    fixed = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    seen = []

    def denoise(x, t):
        seen.append((t, x))
        return 0.5 * x

    out = ddpm(denoise, x, sampling_times(1000, 4), alpha_bar=BAR, noise=lambda: fixed)
    for (t, before), (s, after) in itertools.pairwise([*seen, (0, out)]):
        mean, spread = posterior(before, 0.5 * before, BAR[t].item(), BAR[s].item())
        torch.testing.assert_close(after, mean + spread * fixed, rtol=0, atol=1e-15)


def spread_after(times, data_variance, variance):
    """Variance of ddpm's state at the last of these times, from noise, for T x_0 of mean 0 and a variance.

    Each step is x -> a x + b noise; ddpm itself says what a and b are.
    """
    spread = NOISE_VARIANCE
    for pair in itertools.pairwise(times):

        def denoise(x, t):
            bar = BAR[t].item()
            return bar**0.5 * data_variance / (bar * data_variance + (1 - bar) * NOISE_VARIANCE) * x

        a, b = (
            ddpm(denoise, torch.tensor(x), pair, alpha_bar=BAR, noise=lambda n=n: torch.tensor(n), variance=variance)
            for x, n in ((1.0, 0.0), (0.0, 1.0))
        )
        spread = a.item() ** 2 * spread + b.item() ** 2 * NOISE_VARIANCE
    return spread


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_each_variance_is_exact_for_the_data_that_it_is_for(steps):
    """Eq. 9's marginals, in any number of steps: beta for data as broad as the noise, beta-tilde for a single image."""
    times = sampling_times(1000, steps)[:-1]
    left = (1 - BAR[times[-1]].item()) * NOISE_VARIANCE
    assert spread_after(times, NOISE_VARIANCE, "beta") == pytest.approx(NOISE_VARIANCE, rel=1e-5)
    assert spread_after(times, NOISE_VARIANCE, "posterior") < 0.999 * NOISE_VARIANCE
    assert spread_after(times, 0.0, "posterior") == pytest.approx(left, rel=1e-5)
    assert spread_after(times, 0.0, "beta") > 1.001 * left
    with pytest.raises(ValueError, match="unknown variance 'large'"):
        spread_after(times, 0.0, "large")


def test_ddpm_is_ddim_with_all_of_its_noise():
    start = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fresh = torch.randn(100, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = {"alpha_bar": BAR, "noise": lambda: fresh}
    one = ddpm(exact_denoiser, start, sampling_times(1000, 50), **given)
    other = ddim(exact_denoiser, start, sampling_times(1000, 50), eta=1.0, **given)
    # To what is left of DDIM's 1 - bar_s - sigma^2, which cancels where the schedule is nearly all noise.
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def keeps_the_contract(sampler, steps_of, **given):
    """x stays as it was, `steps_of(n)` are the steps, and the network is evaluated as often as the entry says."""
    assert list(inspect.signature(sampler.run).parameters)[:2] == ["denoise", "x"]
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before, calls = x.clone(), []

    def denoise(x, t):
        calls.append(t)
        return torch.zeros_like(x)

    steps = steps_of(5)
    out = sampler.run(denoise, x, steps, noise=lambda: torch.zeros(3, 2), **given)
    assert torch.equal(x, before), "the input was changed in place"
    assert len(calls) == sampler.evaluations(5)
    assert calls[0] == steps[0]
    assert set(calls) == set(steps[:-1]), "at the times that it is told"
    assert all(a >= b for a, b in itertools.pairwise(calls)), "descending"
    torch.testing.assert_close(out, torch.zeros(3, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_the_contract(name):
    keeps_the_contract(SAMPLERS[name], lambda n: sampling_times(1000, n), alpha_bar=BAR)


@pytest.mark.parametrize("name", EDM_SAMPLERS)
def test_every_sampler_of_edm_keeps_the_contract(name):
    keeps_the_contract(EDM_SAMPLERS[name], sigma_steps)


def test_a_sampler_with_two_evaluations_a_step_keeps_the_contract():
    def midpoint(denoise, x, times, *, alpha_bar, noise):
        for t in times[:-1]:
            x = (denoise(x, t) + denoise(x, t)) / 2
        return x

    given = {"steps_of": lambda n: sampling_times(1000, n), "alpha_bar": BAR}
    keeps_the_contract(Sampler(midpoint, lambda steps: 2 * steps), **given)
    with pytest.raises(AssertionError):
        keeps_the_contract(Sampler(midpoint), **given)

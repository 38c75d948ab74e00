"""Guidance and inversion, with the exact denoiser of a Gaussian: everything about the posterior is known."""

import math

import pytest
import torch

from infdiff.diffusion.guidance import fixed_lengths, guided
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.samplers import ddim, ddim_inversion, ddpm
from infdiff.diffusion.schedules import alpha_bar, sampling_times

BAR = alpha_bar("cosine", 1000)
SIDE = 12


@pytest.fixture(scope="module")
def covariance():
    """Of images: neighbours alike."""
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    distance = torch.cdist(place, place)
    return torch.exp(-((distance / 4) ** 2)) * 0.25 + 1e-3 * torch.eye(SIDE**2, dtype=torch.float64)


@pytest.fixture(scope="module")
def denoise(covariance):
    """E[x_0 | x_t] of N(0, covariance)."""

    def estimate(x, t):
        bar = float(BAR[t])
        gain = (
            math.sqrt(bar) * covariance @ torch.linalg.inv(bar * covariance + (1 - bar) * torch.eye(SIDE**2).double())
        )
        return (x.flatten(2) @ gain.mT).unflatten(2, (SIDE, SIDE))

    return estimate


@pytest.fixture
def image(covariance, generator):
    noise = torch.randn(2, 1, SIDE**2, dtype=torch.float64, generator=generator)
    return (noise @ torch.linalg.cholesky(covariance).mT).unflatten(2, (SIDE, SIDE))


def psnr(a, b):
    return 10 * math.log10(4 / (a - b).square().mean().item())


@pytest.mark.parametrize(("steps", "least"), [(50, 30), (200, 40)])
def test_inversion_then_sampling_returns_the_image(steps, least, denoise, image):
    noise = ddim_inversion(denoise, image, sampling_times(1000, steps), alpha_bar=BAR)
    again = ddim(denoise, noise, sampling_times(1000, steps), alpha_bar=BAR, noise=lambda: None)
    assert psnr(again, image) > least
    # What it found is noise: as large as the schedule's.
    assert 0.5 < noise.std() < 1.5


@pytest.mark.parametrize("smooth", [lambda g: g, Mollifier(1.0, (SIDE, SIDE)).twice], ids=["plain", "mollified"])
@pytest.mark.parametrize("weight", [0.3, 1.0, 1.9])
def test_guidance_lowers_the_error_at_every_step(weight, smooth, denoise, image, generator):
    mask = torch.ones(SIDE, SIDE, dtype=torch.float64)
    mask[3:9, 3:9] = 0
    errors = []

    def watched(x, t):
        plain = (denoise(x, t) - image) * mask
        estimate = guided(denoise, lambda y: y * mask, image * mask, weight, smooth)(x, t)
        errors.append((plain.square().flatten(1).sum(1), ((estimate - image) * mask).square().flatten(1).sum(1)))
        return estimate

    start = torch.randn(image.shape, dtype=torch.float64, generator=generator)
    ddim(watched, start, sampling_times(1000, 30), alpha_bar=BAR, noise=lambda: None)
    assert len(errors) == 30
    assert all((after < before).all() for before, after in errors)


def test_what_is_known_is_kept_and_the_rest_follows(denoise, image, covariance, generator):
    mask = torch.ones(SIDE, SIDE, dtype=torch.float64)
    mask[4:8, 4:8] = 0
    start = torch.randn(image.shape, dtype=torch.float64, generator=generator)
    out = ddim(
        guided(denoise, lambda y: y * mask, image * mask),
        start,
        sampling_times(1000, 100),
        alpha_bar=BAR,
        noise=lambda: None,
    )
    free = ddim(denoise, start, sampling_times(1000, 100), alpha_bar=BAR, noise=lambda: None)
    assert ((out - image) * mask).square().mean() < 0.02 * ((free - image) * mask).square().mean()
    # The hidden part: nearer to its expectation given the rest than a free sample is.
    hidden, seen = (mask.flatten() == 0).nonzero()[:, 0], (mask.flatten() == 1).nonzero()[:, 0]
    weights = covariance[hidden][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
    expected = image.flatten(2)[..., seen] @ weights.mT
    error, chance = ((y.flatten(2)[..., hidden] - expected).square().mean() for y in (out, free))
    assert error < 0.2 * chance


def test_no_weight_changes_nothing(denoise, image):
    x = image + 0.3
    torch.testing.assert_close(guided(denoise, lambda y: y, image, 0.0)(x, 400), denoise(x, 400))


def test_each_image_of_a_batch_is_guided_by_itself(denoise, image):
    both = guided(denoise, lambda y: y[..., :6], image[..., :6])(image + 0.3, 400)
    one = guided(denoise, lambda y: y[..., :6], image[:1, :, :, :6])(image[:1] + 0.3, 400)
    torch.testing.assert_close(both[:1], one)


@pytest.mark.parametrize("weight", [0.0, 0.02, 0.5])
def test_a_fixed_weight_moves_each_state_by_as_many_gradients(weight, denoise, image):
    """One step of ddpm by hand: x_{t-1} - weight * gradient of the squared error in x_t (∞-Diff section 5)."""
    times = [600, 400, 0]
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    mask[..., :5] = 1
    follow = guided(denoise, lambda x: x * mask, image * mask, fixed=fixed_lengths(weight, times, BAR))
    noise = torch.randn_like(image)
    start = torch.randn_like(image)

    def step(denoiser, x, t, s):
        return ddpm(denoiser, x, [t, s], alpha_bar=BAR, noise=lambda: noise)

    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(((denoise(x, 600) - image) * mask).square().sum(), x)
    wanted = step(denoise, start, 600, 400) - weight * gradient
    torch.testing.assert_close(step(follow, start, 600, 400), wanted)

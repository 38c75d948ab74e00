"""The law of both kinds of guidance: on a Gaussian prior, samples have the mean and variance of the posterior."""

import math

import pytest
import torch

from infdiff.diffusion.guidance import guided, noise_share
from infdiff.diffusion.measurements import Mask, Measurement, Reduction
from infdiff.diffusion.projection import projected
from infdiff.diffusion.samplers import ddpm
from infdiff.diffusion.schedules import alpha_bar

BAR = alpha_bar("cosine", 1000)
TIMES = range(1000, -1, -1)
SIDE, PIXELS = 4, 16
VISIBLE = torch.ones(SIDE, SIDE, dtype=torch.bool)
VISIBLE[1:3, 1:3] = False
OPERATORS = {"reduction": Reduction((SIDE, SIDE), (2, 2)), "mask": Mask(VISIBLE)}


@pytest.fixture(scope="module")
def covariance():
    """Of images: neighbours alike."""
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    return torch.exp(-((torch.cdist(place, place) / 2) ** 2)) * 0.25 + 0.02 * torch.eye(PIXELS, dtype=torch.float64)


def matrix(operator):
    """(values, PIXELS) of a linear operator, without the values that are always 0."""
    columns = operator(torch.eye(PIXELS, dtype=torch.float64).view(PIXELS, 1, SIDE, SIDE)).flatten(1).mT
    return columns, columns.abs().sum(1) > 0


def posterior(covariance, operator, values, noise):
    """Mean (PIXELS,) and covariance of N(0, covariance) given values = operator(x) + noise * white."""
    a, counts = matrix(operator)
    a, y = a[counts], values.flatten()[counts]
    gain = covariance @ a.mT @ torch.linalg.inv(a @ covariance @ a.mT + noise**2 * torch.eye(len(a)).double())
    return gain @ y, covariance - gain @ a @ covariance


def exact_denoiser(covariance, blur=None):
    """E[T x_0 | x_t], x_t = sqrt(bar) T x_0 + sqrt(1 - bar) T xi; T a matrix, or 1."""
    t_matrix = torch.eye(PIXELS, dtype=torch.float64) if blur is None else blur
    inverse = torch.linalg.inv(t_matrix)
    gains = {}

    def denoise(x, t):
        if t not in gains:
            bar = float(BAR[t])
            seen = bar * covariance + (1 - bar) * torch.eye(PIXELS).double()
            gains[t] = t_matrix @ (math.sqrt(bar) * covariance @ torch.linalg.inv(seen)) @ inverse
        return (x.flatten(2) @ gains[t].mT).view_as(x)

    return denoise


def drawn(covariance, operator, noise, generator):
    """What is measured of an image of the prior."""
    white = torch.randn(PIXELS, dtype=torch.float64, generator=generator)
    values = operator((torch.linalg.cholesky(covariance) @ white).view(1, 1, SIDE, SIDE))
    return values + noise * torch.randn(values.shape, dtype=torch.float64, generator=generator)


def law_of_ddpm(denoise):
    """Mean and covariance of what `ddpm` makes of Gaussian noise, with a denoiser that is affine.

    Each of its steps is then affine in state and noise: found by what it makes of unit vectors of both, and exact.
    """
    unit, zero = torch.eye(PIXELS).double(), torch.zeros(PIXELS, PIXELS).double()
    states = torch.cat([zero[:1], unit, zero]).view(-1, 1, SIDE, SIDE)
    noises = torch.cat([zero[:1], zero, unit]).view(-1, 1, SIDE, SIDE)
    mean, covariance = zero[0], unit
    for t in TIMES[:-1]:
        made = ddpm(denoise, states, [t, t - 1], alpha_bar=BAR, noise=lambda: noises).flatten(1)
        offset, of_state, of_noise = made[0], made[1 : 1 + PIXELS] - made[0], made[1 + PIXELS :] - made[0]
        mean = offset + mean @ of_state
        covariance = of_state.mT @ covariance @ of_state + of_noise.mT @ of_noise
    return mean, covariance


def errors(found, wanted):
    """Of the mean, in units of the posterior's standard deviation, and of the variance, relative; over all pixels."""
    variance = wanted[1].diagonal().mean()
    off = (found[0] - wanted[0]).square().mean().sqrt() / variance.sqrt()
    return float(off), abs(float(found[1].diagonal().mean() / variance) - 1)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("name", OPERATORS)
def test_projection_samples_the_posterior(name, noise, covariance, generator):
    operator = OPERATORS[name]
    values = drawn(covariance, operator, noise, generator)
    measurement = Measurement(values, operator, operator.A_dagger, noise)
    denoise = projected(exact_denoiser(covariance), measurement, alpha_bar=BAR, data_std=0.5, iterations=8)
    assert max(errors(law_of_ddpm(denoise), posterior(covariance, operator, values, noise))) < 0.03


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_sample_the_posterior(name, noise, covariance, generator):
    operator = OPERATORS[name]
    values = drawn(covariance, operator, noise, generator)
    denoise = guided(
        exact_denoiser(covariance),
        operator,
        values,
        iterations=8,
        noise=lambda t: noise_share(noise**2, float(BAR[t]), 1.0),
    )
    assert max(errors(law_of_ddpm(denoise), posterior(covariance, operator, values, noise))) < 0.03

"""Processes of latents: with networks that are exact for a known distribution, they draw from it."""

import pytest
import torch

from infdiff.diffusion.latent_processes import PROCESSES, LatentDDPM, LatentEDM

# Each needs so many. A hundred of DDIM at even times make the spread of a Gaussian a tenth too large.
STEPS = {"ddpm": 1000, "edm": 50}


@pytest.fixture(params=PROCESSES)
def name(request):
    return request.param


@pytest.fixture
def process(name):
    return {"ddpm": LatentDDPM, "edm": LatentEDM}[name]()


def exact(process, estimate):
    """The network whose denoiser is estimate(y, sigma), y = z + sigma n being the state without its scale."""
    if isinstance(process, LatentDDPM):

        def noise(x, t):
            bar = process.alpha_bar[t].to(x)[:, None]
            sigma = ((1 - bar) / bar).sqrt()
            return (x / bar.sqrt() - estimate(x / bar.sqrt(), sigma)) / sigma

        return noise

    def target(x, times):
        sigma = (times / 250).exp()[:, None]
        skip, out, scale, _ = process.preconditioning(sigma)
        return (estimate(x / scale, sigma) - skip * x / scale) / out

    return target


def gaussian(y, sigma):
    """Of latents of variance 1."""
    return y / (1 + sigma.square())


def two_points(y, sigma):
    """Of latents that are 1 or -1 in every number."""
    return torch.tanh(y / sigma.square())


def test_gaussian_latents_are_drawn(name, process, generator):
    noise = torch.randn(4000, 3, generator=generator)
    drawn = process.from_noise(exact(process, gaussian), noise, STEPS[name])
    # One map of noise to latents, which for a Gaussian is the noise itself.
    torch.testing.assert_close(drawn, noise, rtol=0.03, atol=0.01)


def test_points_are_found(name, process, generator):
    noise = torch.randn(500, 2, generator=generator)
    noise = noise[(noise.abs() > 0.02).all(dim=1)]  # between the points, the last step may end between them
    drawn = process.from_noise(exact(process, two_points), noise, STEPS[name])
    torch.testing.assert_close(drawn, noise.sign(), rtol=0, atol=0.01)


def test_a_part_of_the_way_keeps_a_part(name, process, generator):
    z, noise = torch.randn(2, 4000, 1, generator=generator)
    network = exact(process, gaussian)

    def kept(part):
        drawn = process.from_part(network, z, noise, STEPS[name], part)
        assert abs(drawn.std() - 1) < 0.05
        return torch.corrcoef(torch.stack([drawn.flatten(), z.flatten()]))[0, 1]

    assert kept(0.02) > 0.9
    assert kept(0.02) > kept(0.1) > kept(0.3) > kept(1.0)
    assert abs(kept(1.0)) < 0.05


def test_errors_are_of_the_estimate(process, generator):
    """An exact network has the error that none can avoid; a network that says nothing has more of it, or as much."""
    z, noise = torch.randn(2, 20_000, 1, generator=generator)
    t = process.draw(len(z), generator)
    error = process.error(exact(process, gaussian), z, noise, t).mean()
    other = process.error(lambda x, t: 0.5 * torch.ones_like(x), z, noise, t).mean()
    assert error < other
    if isinstance(process, LatentEDM):  # the target has variance 1, and cannot be known
        assert error == pytest.approx(1, rel=0.03)
        assert other == pytest.approx(1.25, rel=0.03)
    assert torch.equal(t, process.draw(len(z), generator)) is False
    assert process.snr(t).shape == t.shape

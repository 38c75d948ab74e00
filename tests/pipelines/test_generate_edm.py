"""Generation with EDM: seeds, the way of pixels, noise at every size."""

import pytest
import torch

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.samplers import heun
from infdiff.diffusion.schedules import sigma_steps
from infdiff.models import DFU, GridDenoiser
from infdiff.pipelines.generate import generate

CPU = torch.device("cpu")


def generate_edm(network, process, *, steps, churn=0.0, **given):
    sigmas = sigma_steps(steps)

    def sample(denoise, first, noise):
        return heun(denoise, first(), sigmas, noise=noise, s_churn=churn)

    return generate(network, process, device=CPU, sample=sample, **given)


@pytest.fixture(scope="module")
def network():
    """A tiny network with random weights, all of them at work."""
    torch.manual_seed(0)
    options = {"channels": 4, "multipliers": (1, 2), "blocks": 1, "modes": 3}
    model = GridDenoiser(DFU(in_channels=3, out_channels=3, condition_dim=8, **options), condition_dim=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("churn", [0.0, 3.0])
@pytest.mark.parametrize("size", [(16, 16), (9, 20)])
def test_an_image_depends_on_seed_and_index_alone(network, size, churn):
    def run(indices, seed=3):
        return generate_edm(network, EDM(), size=size, seed=seed, indices=indices, steps=4, churn=churn)

    together = run(range(4))
    assert together.shape == (4, 3, *size)
    apart = torch.cat([run([3]), run([1, 0])])
    torch.testing.assert_close(apart, together[[3, 1, 0]], rtol=0, atol=1e-4)
    assert (run([0], seed=4) - together[:1]).abs().max() > 0.01


def test_churn_is_noise_on_the_way(network):
    options = {"size": (8, 8), "seed": 0, "indices": [0], "steps": 4}
    plain, churned = (generate_edm(network, EDM(), churn=churn, **options) for churn in (0.0, 3.0))
    assert (plain - churned).abs().max() > 0.01


def test_every_evaluation_is_reported(network):
    calls = []
    options = {"size": (8, 8), "seed": 0, "indices": [0], "steps": 5}
    generate_edm(network, EDM(), on_step=lambda: calls.append(1), **options)
    assert len(calls) == 2 * 5 - 1


@pytest.mark.parametrize("mollifier", [None, Mollifier(1.0, (6, 9))])
def test_a_perfect_denoiser_reaches_its_image(mollifier):
    process = EDM(mollifier=mollifier)
    goal = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(0)) - 0.5

    def perfect(scaled, c_noise):
        skip, out, scale, _ = (c.view(-1, 1, 1, 1) for c in process.preconditioning((4 * c_noise).exp()))
        return (goal - skip * scaled / scale) / out

    out = generate_edm(perfect, process, size=(6, 9), seed=0, indices=[0, 1], steps=10)
    torch.testing.assert_close(out, goal.expand(2, -1, -1, -1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(16, 16), (48, 24)])
def test_sampling_starts_from_noise_of_the_largest_level(size):
    """A denoiser that knows the data's variance alone leaves Gaussian images of that variance, at every size."""
    process = EDM(sigma_data=0.5)

    def gaussian(scaled, c_noise):
        # The best estimate of y is c_skip x, so F is 0.
        return torch.zeros_like(scaled)

    out = generate_edm(gaussian, process, size=size, seed=1, indices=range(8), steps=64)
    assert out.std().item() == pytest.approx(0.5, rel=0.03)

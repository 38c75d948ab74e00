"""Generation: seeds, the way of pixels, the first noise, latents of images."""

import weakref

import pytest
import torch
from torch import nn

from infdiff.config.files import load_config
from infdiff.diffusion.mollifier import Mollifier
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sampling import SamplingOptions
from infdiff.pipelines.generate import encode, generate, on_all_pixels
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained():
    """A tiny network with random weights, all of them at work."""
    config = load_config(CONFIG_FOLDER / "demo.yaml", TINY)
    modules = build_modules(config)
    generator = torch.Generator().manual_seed(1)
    for module in modules.values():
        module.eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return modules, method_of(config)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_an_image_depends_on_seed_and_index_alone(trained, sampler, size):
    modules, method = trained
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def run(indices, seed=3):
        return method.generate(
            modules["denoiser"],
            size=size,
            seed=seed,
            indices=indices,
            z=z[list(indices)],
            device=CPU,
            options=SamplingOptions(sampler, steps=4),
        )

    together = run(range(4))
    assert together.shape == (4, 3, *size)
    apart = torch.cat([run([3]), run([1, 0])])
    torch.testing.assert_close(apart, together[[3, 1, 0]], rtol=0, atol=1e-4)
    assert (run([0], seed=4) - together[:1]).abs().max() > 0.01


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
def test_the_first_noise_is_let_go_of(trained, sampler, monkeypatch):
    # It is as large as the image: held to the end, it would be a good part of a large sample's memory.
    modules, method = trained
    drawn, alive, draw = [], [], Mollifier.noise

    def noise(*arguments):
        out = draw(*arguments)
        drawn.append(weakref.ref(out))
        return out

    monkeypatch.setattr(Mollifier, "noise", noise)
    method.generate(
        modules["denoiser"],
        size=(8, 8),
        seed=0,
        indices=[0],
        z=torch.zeros(1, 8),
        device=CPU,
        options=SamplingOptions(sampler, steps=3),
        on_step=lambda: alive.append(drawn[0]() is not None),
    )
    assert alive == [True, False, False]


def test_every_step_is_reported(trained):
    modules, method = trained
    calls = []
    method.generate(
        modules["denoiser"],
        size=(8, 8),
        seed=0,
        indices=[0],
        z=torch.zeros(1, 8),
        device=CPU,
        options=SamplingOptions("ddim", steps=7),
        on_step=lambda: calls.append(1),
    )
    assert len(calls) == 7


def test_a_perfect_denoiser_reaches_its_image():
    """The pipeline passes pixels to the network and back in the right order."""
    method = method_of(load_config(CONFIG_FOLDER / "demo.yaml", TINY))
    process = method.process
    goal = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(0)) - 0.5

    class Perfect(nn.Module):
        def geometry(self, ids, size):
            return size

        def forward(self, x, size, t, z):
            scaled = x.mT.unflatten(2, size)
            # The noise that, mixed with the goal, gives this state; and the target of the two.
            scale = 1 / process.network_input(torch.ones_like(scaled), t)
            signal, spread = process.schedule.coefficients(t, scaled)
            noise = (scaled * scale - signal * goal) / spread
            image = goal.expand_as(noise)
            return process.training_target(image, noise, image, noise, t).flatten(2).mT

    network = on_all_pixels(Perfect(), (6, 9), 2, CPU)
    sample = method.sampler(SamplingOptions("ddim", steps=10))
    out = generate(
        lambda x, t: network(x, t, None), process, size=(6, 9), seed=0, indices=[0, 1], device=CPU, sample=sample
    )
    torch.testing.assert_close(out, goal.expand(2, -1, -1, -1), rtol=0, atol=1e-3)


def test_tiles_are_the_whole_image(trained):
    modules, method = trained
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    given = {"size": (24, 40), "seed": 0, "indices": [0], "z": z, "device": CPU}
    whole, tiled = (
        method.generate(modules["denoiser"], options=SamplingOptions("ddim", steps=2, tile=tile), **given)
        for tile in (None, 7)
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


def test_latents_do_not_depend_on_the_batch(trained):
    modules, _ = trained
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    together = encode(modules["encoder"], images, points=64)
    torch.testing.assert_close(encode(modules["encoder"], images[3:4], points=64), together[3:4])

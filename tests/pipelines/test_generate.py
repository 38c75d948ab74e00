"""Generation, previews and folders of samples."""

import json
import weakref

import pytest
import torch
from torch import nn

from infdiff.config_files import load_config
from infdiff.diffusion.mollifier import Mollifier
from infdiff.errors import UserError
from infdiff.images.pixels import from_uint8, to_uint8
from infdiff.images.sample_folder import sample_to_folder
from infdiff.images.write import contact_sheet
from infdiff.methods.method import build_modules, method_of
from infdiff.pipelines.generate import encode, generate
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, pixels

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
    return modules, method_of(config).process


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_an_image_depends_on_seed_and_index_alone(trained, sampler, size):
    modules, process = trained
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def run(indices, seed=3):
        return generate(
            modules["denoiser"],
            process,
            size=size,
            seed=seed,
            indices=indices,
            z=z[list(indices)],
            device=CPU,
            sampler=sampler,
            steps=4,
        )

    together = run(range(4))
    assert together.shape == (4, 3, *size)
    apart = torch.cat([run([3]), run([1, 0])])
    torch.testing.assert_close(apart, together[[3, 1, 0]], rtol=0, atol=1e-4)
    assert (run([0], seed=4) - together[:1]).abs().max() > 0.01


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
def test_the_first_noise_is_let_go_of(trained, sampler, monkeypatch):
    # It is as large as the image: held to the end, it would be a good part of a large sample's memory.
    modules, process = trained
    drawn, alive, draw = [], [], Mollifier.noise

    def noise(*arguments):
        out = draw(*arguments)
        drawn.append(weakref.ref(out))
        return out

    monkeypatch.setattr(Mollifier, "noise", noise)
    generate(
        modules["denoiser"],
        process,
        size=(8, 8),
        seed=0,
        indices=[0],
        z=torch.zeros(1, 8),
        device=CPU,
        sampler=sampler,
        steps=3,
        on_step=lambda: alive.append(drawn[0]() is not None),
    )
    assert alive == [True, False, False]


def test_every_step_is_reported(trained):
    modules, process = trained
    calls = []
    generate(
        modules["denoiser"],
        process,
        size=(8, 8),
        seed=0,
        indices=[0],
        z=torch.zeros(1, 8),
        device=CPU,
        steps=7,
        on_step=lambda: calls.append(1),
    )
    assert len(calls) == 7


def test_a_perfect_denoiser_reaches_its_image():
    """The pipeline hands pixels to the network and back in the right order."""
    process = method_of(load_config(CONFIG_FOLDER / "demo.yaml", TINY)).process
    goal = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(0)) - 0.5

    class Perfect(nn.Module):
        def geometry(self, ids, size):
            return size

        def forward(self, x, size, t, z):
            state = x.mT.unflatten(2, size)
            cos, sin = process._angle(state, t)
            v = (cos * state - goal / process.data_std) / sin
            return v.flatten(2).mT

    out = generate(Perfect(), process, size=(6, 9), seed=0, indices=[0, 1], z=None, device=CPU, steps=10)
    torch.testing.assert_close(out, goal.expand(2, -1, -1, -1), rtol=0, atol=1e-3)


def test_codes_do_not_depend_on_the_batch(trained):
    modules, _ = trained
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    together = encode(modules["encoder"], images, points=64)
    torch.testing.assert_close(encode(modules["encoder"], images[3:4], points=64), together[3:4])


def test_pixel_values_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_a_folder_of_samples_says_what_made_it(tmp_path):
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    sheet = sample_to_folder(lambda i: images[i], tmp_path / "out", count=5, batch=2, record={"seed": 3})
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "00004.png", "grid.png", "samples.json"]
    assert json.loads((tmp_path / "out" / "samples.json").read_text()) == {"seed": 3}
    assert (pixels(tmp_path / "out" / "00004.png") == images[4].permute(1, 2, 0).numpy()).all()
    assert pixels(sheet).shape == (2 * 4 + 2, 3 * 6 + 4, 3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        sample_to_folder(
            lambda i: torch.zeros(1, 3, 2, 2, dtype=torch.uint8), tmp_path / "file", count=1, batch=1, record={}
        )


def test_contact_sheet_places_images_row_by_row():
    images = torch.stack([torch.full((3, 2, 2), i, dtype=torch.uint8) for i in range(3)])
    sheet = contact_sheet(images, columns=2, gap=1)
    assert sheet.shape == (3, 5, 5)
    assert sheet[0, ::3, ::3].tolist() == [[0, 1], [2, 255]]

"""`infdiff.load`: one object that samples, encodes, enlarges and fills, and an exported folder that does the same."""

import numpy as np
import pytest
import torch
from PIL import Image

import infdiff
from infdiff.diffusion.mollifier import Mollifier
from infdiff.errors import UserError
from infdiff.images.convert import from_images, to_images, to_mask
from infdiff.methods.sampling import SamplingOptions
from tests.runs.conftest import train_latent


@pytest.fixture
def picture():
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((20, 16), Image.Resampling.BICUBIC)


def test_everything_once(run, picture):
    model = infdiff.load(run, device="cpu")
    assert model.size == (16, 16)
    (image,) = model.sample(1, (16, 24), seed=3)
    assert image.size == (24, 16)
    several = model.sample(3, "16x24", seed=3, output="numpy")
    assert several.shape == (3, 16, 24, 3)
    assert np.abs(several[0].astype(int) - np.array(image)).max() <= 1
    z = model.encode([picture, picture])
    assert z.shape == (2, 8)
    torch.testing.assert_close(z[0], z[1])
    assert model.decode(z, 24, output="tensor").shape == (2, 3, 24, 24)
    assert model.reconstruct(picture)[0].size == picture.size
    assert model.super_resolve(picture, 40, steps=2)[0].size == (40, 32)
    mask = np.zeros((16, 20), dtype=bool)
    mask[4:9, 5:12] = True
    filled = model.inpaint(picture, mask, 2, steps=2, output="numpy")
    assert (filled[:, ~mask] == np.array(picture)[~mask]).all()


@pytest.mark.parametrize("latent", [False, True])
def test_an_exported_model_gives_the_same_pixels(latent, run, tmp_path, picture):
    if latent:
        train_latent(run, 5)
    model = infdiff.load(run, device="cpu")
    folder = model.export(tmp_path / "exported")
    files = {p.name for p in folder.rglob("*") if p.is_file()}
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".yaml", ".json", ".safetensors", ".md"}
    assert ("ema_latent.safetensors" in files) == latent
    assert "optimizer.safetensors" not in files
    again = infdiff.load(folder, device="cpu")
    for a, b in (
        (model.sample(2, 24, output="tensor"), again.sample(2, 24, output="tensor")),
        (model.reconstruct(picture, output="tensor"), again.reconstruct(picture, output="tensor")),
    ):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match="not empty"):
        model.export(folder)


def test_options_that_do_not_fit_are_named(run, picture):
    model = infdiff.load(run, device="cpu")
    for call, message in (
        (lambda: model.sample(1, wrong=1), "wrong: 1: unknown option"),
        (lambda: model.sample(1, steps=5000), "steps: 5000"),
        (lambda: model.sample(1, output="gif"), "output='gif'"),
        (lambda: model.super_resolve(picture, 8), "smaller than the image"),
        (lambda: model.inpaint(picture, np.zeros((16, 20), bool)), "nothing to fill"),
        (lambda: model.inpaint([picture, picture], np.ones((16, 20), bool)), "takes one"),
    ):
        with pytest.raises((UserError, ValueError), match=message):
            call()
    with pytest.raises(UserError, match="not a run directory"):
        infdiff.load(run / "nowhere")


def test_images_in_every_form_are_the_same(picture):
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    forms = (picture, array, array[None], [picture], tensor, tensor[None], tensor / 255, array.astype(float) / 255)
    for form in forms:
        assert torch.equal(to_images(form)[0], tensor)
    assert torch.equal(to_images(picture.convert("RGBA"))[0], tensor)
    assert to_images([array, tensor]).shape == (2, 3, 16, 20)
    for form in ("pil", "numpy", "tensor"):
        assert torch.equal(to_images(from_images(tensor[None], form))[0], tensor)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("a.png", "str"),
        ([], "no image"),
        (np.zeros((4, 4)), "three channels"),
        (np.zeros((4, 4, 4), np.uint8), "three channels"),
        (torch.full((3, 4, 4), 2.0), r"\[0, 1\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], "several sizes"),
    ],
)
def test_what_is_no_image_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        to_images(bad)


def test_masks_in_every_form_are_the_same():
    wanted = torch.zeros(4, 6, dtype=torch.bool)
    wanted[1:3, 2:5] = True
    grey = (wanted * 255).to(torch.uint8).numpy()
    for mask in (
        wanted,
        wanted.numpy(),
        grey,
        wanted.float(),
        Image.fromarray(grey),
        Image.fromarray(grey).convert("1"),
    ):
        assert torch.equal(to_mask(mask, (4, 6)), wanted)
    with pytest.raises(ValueError, match="4x5"):
        to_mask(wanted, (4, 5))


def test_the_cosine_series_of_a_sample_passes_through_it(run):
    """Pixels of three times the size include the smaller one's centres."""
    model = infdiff.load(run, device="cpu")
    small = model.sample(2, 16, seed=3, steps=2, deblur="none", output="numpy").astype(int)
    large = model.sample(2, (48, 48), seed=3, steps=2, deblur="none", upscale="cosine", output="numpy").astype(int)
    # Clipped values between may not come back.
    inner = (small > 0) & (small < 255)
    assert inner.mean() > 0.5
    assert np.abs(large[:, 1::3, 1::3] - small)[inner].max() <= 1
    native = model.sample(2, 12, seed=3, steps=2, output="numpy")
    assert (model.sample(2, 12, seed=3, steps=2, upscale="cosine", output="numpy") == native).all()


def test_a_sample_enlarged_in_windows_reduces_to_the_smaller_one(run):
    model = infdiff.load(run, device="cpu")
    small = model.sample(2, 16, seed=3, steps=2, output="tensor")
    options = {"seed": 3, "steps": 2, "upscale": "windows"}
    large = model.sample(2, (48, 32), output="tensor", **options)
    cells = torch.nn.functional.interpolate(large.float(), (16, 16), mode="area")
    assert (cells - small.float()).abs().mean() < 6
    assert (
        model.sample(2, 12, output="tensor", **options) == model.sample(2, 12, seed=3, steps=2, output="tensor")
    ).all()
    calls = []
    trained = model.trained
    chosen = SamplingOptions.of(trained.method, (48, 32), steps=2, upscale="windows")
    trained.sample([0], (48, 32), seed=3, options=chosen, on_step=lambda: calls.append(1))
    assert len(calls) == chosen.evaluations(trained.method, (48, 32)) == 4
    assert chosen.evaluations(trained.method) == chosen.evaluations(trained.method, (16, 9)) == 2


@pytest.mark.parametrize("method", ["windows", "guided"])
def test_super_resolution_undoes_the_blur_that_it_made(run, monkeypatch, method):
    """T is as wide in windows, in pixels, as in training; otherwise as wide as at the training size, as a function."""
    inverted = []

    def record(mollifier, image, epsilon):
        inverted.append(mollifier.std((image.shape[2], image.shape[3])))
        return image

    monkeypatch.setattr(Mollifier, "wiener_inverse", record)
    model = infdiff.load(run, device="cpu")
    picture = np.zeros((12, 16, 3), dtype=np.uint8)
    model.super_resolve(picture, (24, 32), method=method, steps=2, deblur="wiener")
    sigma = model.trained.config.diffusion.sigma
    # Once at the end, and by projection in every step.
    assert set(inverted) == {(sigma, sigma) if method == "windows" else (1.5 * sigma, 2 * sigma)}

"""Damaged weights and latents of a run are errors that name the file, never other pictures."""

import pytest
import torch

from infdiff.errors import UserError
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel
from tests.runs.conftest import train_latent

CPU = torch.device("cpu")


def flip(path, part=0.7):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * part)] ^= 2
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["ema_denoiser", "ema_encoder"])
def test_a_flipped_bit_of_weights_is_named(run, name):
    flip(run / "checkpoints" / "00000002" / f"{name}.safetensors")
    with pytest.raises(UserError, match=rf"00000002/{name}.safetensors is damaged or missing \(its checksum"):
        TrainedModel.load(run, CPU)


def test_a_flipped_bit_of_the_gaussian_is_named(run):
    trained = TrainedModel.load(run, CPU)
    assert trained.latents is not None
    flip(RunFolder(run).gaussian(2))
    with pytest.raises(UserError, match=r"latents-00000002.safetensors is damaged .* fitted again"):
        _ = TrainedModel.load(run, CPU).latents


@pytest.mark.parametrize("name", ["latents.safetensors", "checkpoints/00000001/ema_latent.safetensors"])
def test_a_flipped_bit_of_the_latent_model_is_named(run, name):
    train_latent(run, 1)
    flip(RunFolder(run).latents(2).path / name)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        _ = TrainedModel.load(run, CPU).latents


def test_a_run_that_can_only_be_read_is_sampled_from(run, monkeypatch):
    def full(*arguments):
        raise UserError("cannot write")

    monkeypatch.setattr("infdiff.runs.latents.save_tensors", full)
    trained = TrainedModel.load(run, CPU)
    assert trained.describe_latents().startswith("a Gaussian")
    assert not RunFolder(run).gaussian(2).exists()


def test_pixels_that_are_not_finite_are_no_picture(run):
    as_asked = TrainedModel.load(run, CPU).as_asked
    images = torch.zeros(1, 3, 2, 2)
    assert as_asked(images, rounded=True).dtype == torch.uint8
    images[0, 0, 0, 0] = torch.nan
    assert as_asked(images, rounded=False).isnan().any()
    with pytest.raises(UserError, match="pixels are not finite"):
        as_asked(images, rounded=True)

"""A trained model on tensors."""

from dataclasses import replace

import pytest
import torch

from infdiff.config.files import changed, load_config
from infdiff.errors import UserError
from infdiff.methods.method import method_of
from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.data import build_data
from infdiff.runs.editing import enlarge, enlarging_options, fill, morph
from infdiff.runs.folder import RunFolder
from infdiff.runs.latents import LatentGaussian, LatentModel
from infdiff.runs.trained import TrainedModel
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY
from tests.runs.conftest import CPU, train_latent


def options(trained, steps):
    return SamplingOptions.of(trained.method, steps=steps)


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8)


def test_a_run_reconstructs_images(run, images):
    trained = TrainedModel.load(run, CPU, "best")
    three = options(trained, 3)
    out = trained.reconstruct(images, options=three)
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    torch.testing.assert_close(trained.reconstruct(images[:2], options=three).int(), out[:2].int(), rtol=0, atol=1)


def test_unrounded_images_are_the_rounded_ones_before_rounding(run):
    trained = TrainedModel.load(run, CPU)
    two = options(trained, 2)
    rounded, exact = (trained.sample([0, 1], (16, 24), seed=0, options=two, rounded=flag) for flag in (True, False))
    assert exact.dtype == torch.float32
    assert (rounded - (exact.clamp(-1, 1) + 1) * 127.5).abs().max() <= 0.5001


def test_the_gaussian_is_fitted_once_to_flipped_images_too(run):
    trained = TrainedModel.load(run, CPU)
    gaussian = trained.latents
    assert isinstance(gaussian, LatentGaussian)
    path = RunFolder(run).gaussian(2)
    written = path.stat().st_mtime_ns
    again = TrainedModel.load(run, CPU).latents
    assert torch.equal(again.factor, gaussian.factor)
    assert path.stat().st_mtime_ns == written
    assert gaussian.count == 2 * 120, "the demo's training images and their flipped copies"
    assert trained.describe_latents() == gaussian.describe()
    assert "no latent model is trained" in gaussian.describe()


def test_a_damaged_gaussian_is_named(run):
    path = RunFolder(run).gaussian(2)
    path.write_bytes(b"half")
    with pytest.raises(UserError, match=r"latents-00000002\.safetensors is damaged"):
        _ = TrainedModel.load(run, CPU).latents


def test_variants_of_an_image_need_a_latent_model(run, images):
    hidden = torch.zeros(16, 16, dtype=torch.bool)
    hidden[4:12] = True

    def variants(variety):
        trained = TrainedModel.load(run, CPU)
        return fill(trained, images[:1], hidden, [0, 1], variety=variety, options=options(trained, 2))

    assert torch.equal(variants(0.0)[:, :, :4], images[:1, :, :4].expand(2, -1, -1, -1))
    with pytest.raises(UserError, match=r"variety: 0\.5: needs a latent diffusion model"):
        variants(0.5)
    train_latent(run, 2)
    assert isinstance(TrainedModel.load(run, CPU).latents, LatentModel)
    assert variants(0.5).shape == (2, 3, 16, 16)


def test_a_run_without_encoder_samples_and_says_what_it_cannot(tmp_path, images):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "model.z_dim=0", "train.steps=1"])
    folder = RunFolder.open_for_training(tmp_path / "x", config)
    build_trainer(config, build_data(config, CPU), folder.path, CPU).run()
    trained = TrainedModel.load(folder.path, CPU)
    assert trained.latents is None
    assert trained.describe_latents() == "none (the run has no encoder)"
    assert trained.sample([0], (16, 16), seed=0, options=options(trained, 2)).shape == (1, 3, 16, 16)
    hidden = torch.ones(16, 16, dtype=torch.bool)
    assert fill(trained, images[:1], hidden, [0], options=options(trained, 2)).shape == (1, 3, 16, 16)
    for call in (
        lambda: trained.encode(images),
        lambda: trained.decode(torch.zeros(1, 8), (16, 16), options=options(trained, 2)),
        lambda: enlarge(trained, images, (32, 32), options=options(trained, 2)),
        lambda: morph(trained, images[:2], 3, options=options(trained, 2)),
    ):
        with pytest.raises(UserError, match="without an encoder"):
            call()


def test_large_images_are_enlarged_in_tiles_however_samples_are(run):
    trained = TrainedModel.load(run, CPU)
    cosine = method_of(changed(trained.config, {"sample.upscale": "cosine"}))
    assert enlarging_options(replace(trained, method=cosine), (20_000, 20_000)).tile is not None

"""The statistics that the EMA encoder standardises by are its own."""

import copy

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.methods.method import method_of
from infdiff.methods.sizes import point_count
from infdiff.pipelines.generate import encode
from infdiff.runs.calibration import Calibration
from infdiff.runs.data import build_data
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY
from tests.runs.conftest import CPU

SETTINGS = [*TINY, "model.grid.dropout=0", "train.steps=60", "train.batch_size=8", "train.learning_rate=1e-2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run whose weights move fast, so that the EMA weights are not the trained ones."""
    config = load_config(CONFIG_FOLDER / "demo.yaml", SETTINGS)
    data = build_data(config, CPU)
    folder = tmp_path_factory.mktemp("run")
    (folder / "samples").mkdir()
    trainer = build_trainer(config, data, folder, CPU)
    trainer.run()
    return config, data, trainer.modules, trainer.ema.modules


def latents(config, data, encoder):
    """Of all training images and their flipped copies, which the run is trained on."""
    images = data.train.take(torch.arange(len(data.train)))
    with torch.no_grad():
        both = torch.cat([images, images.flip(-1)])
        return encode(encoder, both, points=point_count(config), seed=config.seed)


def test_latents_of_a_short_run_have_mean_zero_and_variance_one(trained):
    config, data, _, ema = trained
    z = latents(config, data, ema["encoder"])
    assert z.mean(dim=0).abs().max() < 0.1
    assert z.std(dim=0).min() > 0.9
    assert z.std(dim=0).max() < 1.1


def test_statistics_of_the_trained_encoder_would_not_have_done(trained):
    """The fault that this is for: with them, the EMA encoder's latents are off centre."""
    config, data, modules, ema = trained
    other = copy.deepcopy(ema["encoder"])
    for name, buffer in modules["encoder"].standardize.named_buffers():
        getattr(other.standardize, name).copy_(buffer)
    z = latents(config, data, other)
    assert z.mean(dim=0).abs().max() > 0.15


def test_losses_in_training_and_in_use_agree(trained):
    config, data, _, ema = trained
    objective, images = method_of(config).objective(), data.train.take(torch.arange(96))
    losses = []
    for mode in (True, False):
        modules = {name: copy.deepcopy(module).train(mode) for name, module in ema.items()}
        with torch.no_grad():
            parts = [
                objective(modules, batch, torch.Generator().manual_seed(seed))
                for seed in range(4)
                for batch in images.split(8)
            ]
        losses.append(torch.stack(parts).mean().item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_number_of_images_follows_from_settings_alone():
    def count(**train):
        given = [f"train.{key}={value}" for key, value in train.items()]
        config = load_config(CONFIG_FOLDER / "demo.yaml", given)
        return Calibration(config, range(5000), CPU).count()

    assert count(steps=20, batch_size=8) == 256
    assert count(steps=10_000, checkpoint_every=400, batch_size=16) == 768
    assert count(steps=10_000, checkpoint_every=400, batch_size=4, accumulate=1) == 320
    assert Calibration(load_config(CONFIG_FOLDER / "demo.yaml"), range(120), CPU).count() == 120

"""A tiny trained run, made once for all tests of a session."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.runs.latent_training import build_latent_trainer, encode_run, open_latent_folder
from infdiff.runs.trained import TrainedModel
from tests.conftest import TINY, copy_of, trained_run

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("flipped"), [*TINY, "data.flip=true"])


@pytest.fixture
def run(trained_once, tmp_path):
    """A copy of a trained run, which a test may change."""
    return copy_of(trained_once, tmp_path)


def train_latent(run, steps, *settings):
    """Train the latent model of a run's last checkpoint for some steps."""
    trained = TrainedModel.load(run, CPU)
    small = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8", f"latent.train.steps={steps}"]
    config = load_config(trained.folder.config_file, [*small, *settings])
    folder = open_latent_folder(trained, config)
    latents = encode_run(trained, folder, lambda count: None, lambda count: None)
    build_latent_trainer(config, latents, folder, CPU).run()

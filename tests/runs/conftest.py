"""A tiny trained run, made once for all tests of a session."""

import shutil

import pytest
import torch

from infdiff.config_files import load_config
from infdiff.runs.data import build_data
from infdiff.runs.folder import RunFolder
from infdiff.runs.latent_training import build_latent_trainer, encode_run, open_latent_folder
from infdiff.runs.trained import TrainedModel
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "data.flip=true", "train.steps=2"])
    folder = RunFolder.open_for_training(tmp_path_factory.mktemp("runs") / "tiny", config)
    build_trainer(config, build_data(config, CPU), folder.path, CPU).run()
    return folder.path


@pytest.fixture
def run(trained_once, tmp_path):
    """A copy of a trained run, which a test may change."""
    return shutil.copytree(trained_once, tmp_path / "runs" / "x")


def train_latent(run, steps, *settings):
    """Train the latent model of a run's last checkpoint for some steps."""
    trained = TrainedModel.load(run, CPU)
    small = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8", f"latent.train.steps={steps}"]
    config = load_config(trained.folder.config_file, [*small, *settings])
    folder = open_latent_folder(trained, config)
    latents = encode_run(trained, folder, lambda count: None, lambda count: None)
    build_latent_trainer(config, latents, folder, CPU).run()

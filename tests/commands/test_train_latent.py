"""`infdiff train-latent` as users run it, and samples of the model that it trains."""

import json

import pytest
import torch

from infdiff.runs.trained import TrainedModel
from tests.conftest import TINY, assert_one_line_error, copy_of, pixels, trained_run

SMALL = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8", "latent.train.checkpoint_every=10"]


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("flipped"), [*TINY, "data.flip=true"])


@pytest.fixture
def trained(flipped, tmp_path):
    return copy_of(flipped, tmp_path)


def train(command, *arguments):
    return command("train-latent", "--run", "runs/x", *SMALL, *arguments)


def test_from_latents_to_samples(command, script, trained):
    before = command("sample", "--run", "runs/x", "--out", "gaussian")
    assert "no latent model is trained" in before.stdout
    result = script("train-latent", "--run", "runs/x", *SMALL, "--steps", 20)
    assert result.returncode == 0, result.stderr
    folder = trained / "latents" / "00000002"
    assert {p.name for p in folder.iterdir()} == {
        "latents.safetensors",
        "owner.lock",
        "config.yaml",
        "log.jsonl",
        "loss.png",
        "checkpoints",
    }
    assert "240 latents, 6 held out" in result.stdout
    sampled = command("sample", "--run", "runs/x", "--n", 3, "--out", "a")
    assert "the latent diffusion model (step" in sampled.stdout
    assert "latent diffusion model" in json.loads((trained.parent.parent / "a" / "samples.json").read_text())["latents"]
    # Image i whatever the batch; another source of latents gives another image.
    command("sample", "--run", "runs/x", "--n", 3, "--batch", 1, "--out", "b")
    for i in range(3):
        a, b = (pixels(trained.parent.parent / name / f"{i:05d}.png").astype(int) for name in ("a", "b"))
        assert abs(a - b).max() <= 1
    assert (
        pixels(trained.parent.parent / "a" / "00000.png") != pixels(trained.parent.parent / "gaussian" / "00000.png")
    ).any()


def test_stopping_and_going_on_gives_the_same_weights(command, trained):
    train(command, "--steps", 20)
    whole = TrainedModel.load(trained, torch.device("cpu")).latents
    (trained / "latents").rename(trained / "whole")
    train(command, "--steps", 10)
    train(command, "--steps", 20)
    parts = TrainedModel.load(trained, torch.device("cpu")).latents
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_checkpoint_needs_its_own(command, trained):
    train(command, "--steps", 10)
    command("train", "--steps", 4, "--out", "runs/x", *TINY, "data.flip=true", "train.keep_checkpoints=9")
    assert "no latent model is trained" in command("sample", "--run", "runs/x").stdout
    assert "latent diffusion model" in command("sample", "--run", "runs/x", "--checkpoint", 2, "--out", "two").stdout


def test_bad_input(command, trained):
    assert_one_line_error(train(command, "latent.schedule=magic"), "latent.schedule")
    assert_one_line_error(train(command, "train.steps=3"), "only settings of latent.")
    assert_one_line_error(train(command, "latent.wdith=3"), "latent.width")
    assert_one_line_error(train(command, "--checkpoint", "7"), "--checkpoint 7")
    train(command, "--steps", 10)
    assert_one_line_error(command("train-latent", "--run", "runs/x", "latent.width=8"), "other settings")


def test_a_run_without_encoder(command):
    settings = [s for s in TINY if not s.startswith("model.z_dim")]
    command("train", "--steps", 1, "--out", "runs/x", *settings, "model.z_dim=0")
    assert_one_line_error(train(command), "without an encoder")


def test_the_published_architecture_trains_both_models_and_samples(command):
    """Latents that are not standardised, nor shared with the time, nor laid out anywhere, and x_t as it is."""
    published = [
        *("positions=false", "layout=false", "separate_latent=true", "global_pooling=true"),
        *("standardized_latents=false", "sketch_side=0"),
    ]
    settings = [*TINY, *(f"model.{setting}" for setting in published), "diffusion.scaled_input=false"]
    for arguments in (
        ("train", "--steps", 2, "--out", "runs/x", *settings),
        ("train-latent", "--run", "runs/x", *SMALL, "--steps", 10),
        ("sample", "--run", "runs/x", "--res", 24, "--out", "out"),
    ):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr

"""The scripts as users run them: the whole way, resuming, being killed, and mistakes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from infdiff.training import checkpoint
from tests.conftest import ROOT, TINY, assert_one_line_error, copy_of, pixels
from tests.forking import ONE_THREAD, Forked

# What the small configs train with, and the tiny runs of other tests do not.
RECIPE = ["train.subsample={1: 1, 4: 1}", "train.times=lognormal", "train.optimiser=muon", "model.gated_input=true"]


def weights(run, step):
    groups = ("denoiser", "encoder", "ema_denoiser", "ema_encoder", "optimizer")
    return {g: checkpoint.load_tensors(run / "checkpoints", step, g) for g in groups}


def assert_same_weights(a, b):
    for group, tensors in a.items():
        for key, value in tensors.items():
            assert torch.equal(value, b[group][key]), (group, key)


TRAIN = ROOT / "scripts" / "train.py"


def start(folder, *arguments):
    return Forked(TRAIN, *arguments, *TINY, *RECIPE, folder=folder, environment=os.environ | ONE_THREAD)


def test_from_a_folder_of_images_to_samples_of_other_sizes(command, script, photos, tmp_path):
    result = script("prepare-data", photos, "--out", "d.lmdb", "--size", 16, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "12 images from 12 files, 0 left out" in result.stdout
    result = script("train", "--data", "d.lmdb", "--subsample", 4, "--out", "r", "--steps", 4, *TINY)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "r"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "log.jsonl", "loss.png", "samples", "checkpoints"}
    assert {p.name for p in (run / "samples").iterdir()} == {"samples-00000004.png", "reconstructions-00000004.png"}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [2, 4]
    assert [r["step"] for r in records if "validation_loss" in r] == [3, 4]

    result = script("sample", "--run", "r", "--res", "12x20", "--n", 3, "--batch", 2, "--steps", 3, "--out", "a")
    assert result.returncode == 0, result.stderr
    assert "no latent model is trained" in result.stdout
    assert pixels(tmp_path / "a" / "00002.png").shape == (12, 20, 3)
    record = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert record["size"] == [12, 20]
    assert (record["steps"], record["seed"], record["step"], record["sampler"]) == (3, 0, 4, "ddpm")
    # Image i is the same whatever the number of images and the batch, to the rounding of one grey level.
    command("sample", "--run", "r", "--res", "12x20", "--n", 1, "--steps", 3, "--out", "b")
    first, again = (pixels(tmp_path / folder / "00000.png") for folder in "ab")
    assert abs(first - again).max() <= 1
    assert "stretched to 12x20: --aspect keep cuts them out of 20" in result.stdout
    command("sample", "--run", "r", "--res", "12x20", "--n", 1, "--steps", 3, "--aspect", "keep", "--out", "kept")
    command("sample", "--run", "r", "--res", "20", "--n", 1, "--steps", 3, "--out", "square")
    kept, square = (pixels(tmp_path / folder / "00000.png") for folder in ("kept", "square"))
    assert (kept == square[4:16]).all()
    other = ("--seed", 1, "--deblur", "none", "--out", "c")
    command("sample", "--run", "r", "--res", "12x20", "--n", 1, "--steps", 3, *other)
    assert (pixels(tmp_path / "c" / "00000.png") != first).any()
    # Without --run the newest one under runs/ is taken.
    run.rename(tmp_path / "runs")
    assert_one_line_error(command("sample"), "no run in runs/")
    (tmp_path / "runs").rename(tmp_path / "r")
    (tmp_path / "runs").mkdir()
    (tmp_path / "r").rename(tmp_path / "runs" / "mine")
    result = command("sample", "--steps", 2, "--sampler", "dpm++")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "mine" / "samples" / "16-seed0" / "grid.png").exists()


def test_training_evaluates_its_samples_on_the_way(command, tmp_path):
    settings = ["train.eval_every=2", "train.eval_images=4", *TINY]
    for steps in (4, 6):
        result = command("train", "--out", "r", "--steps", steps, *settings)
        assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    scores = {r["step"]: r["evaluation"] for r in records if "evaluation" in r}
    assert list(scores) == [2, 4, 6]
    assert all(set(found) == {"broken", "spectrum", "kid"} for found in scores.values())
    best = checkpoint.best_step(tmp_path / "r" / "checkpoints")
    assert best in checkpoint.checkpoint_steps(tmp_path / "r" / "checkpoints")
    assert scores[best]["kid"] == min(found["kid"] for found in scores.values())


def test_training_without_autoencoder(command, tmp_path):
    result = command("train", "--out", "r", "--steps", 2, *TINY, "model.z_dim=0")
    assert result.returncode == 0, result.stderr
    result = command("sample", "--run", "r", "--steps", 2)
    assert "no encoder" in result.stdout
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    # Started afresh, and thus with another hash seed than those that are compared with it.
    command = [sys.executable, TRAIN, "--out", "r", "--steps", "30", *TINY, *RECIPE]
    done = subprocess.run(command, cwd=folder, env=os.environ | ONE_THREAD, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return weights(folder / "r", 30)


def test_sigterm_saves_and_the_same_command_resumes_exactly(uninterrupted, tmp_path):
    process = start(tmp_path, "--out", "r", "--steps", 30)
    wait_for(tmp_path / "r" / "log.jsonl")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    steps = checkpoint.checkpoint_steps(tmp_path / "r" / "checkpoints")
    assert steps
    process = start(tmp_path, "--out", "r", "--steps", 30)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_same_weights(uninterrupted, weights(tmp_path / "r", 30))


def test_kill_at_any_moment_then_resume_gives_the_same_weights(uninterrupted, tmp_path):
    chance = random.Random(0)
    for _ in range(3):
        process = start(tmp_path, "--out", "r", "--steps", 30)
        wait_for(tmp_path / "r" / "log.jsonl")
        time.sleep(chance.uniform(0.0, 1.5))
        process.kill()
        process.communicate(timeout=60)
        for step in checkpoint.checkpoint_steps(tmp_path / "r" / "checkpoints"):
            weights(tmp_path / "r", step)  # every checkpoint there is, is whole
    process = start(tmp_path, "--out", "r", "--steps", 30)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_same_weights(uninterrupted, weights(tmp_path / "r", 30))
    steps = [json.loads(line)["step"] for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def wait_for(path: Path, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_during_a_checkpoint_keeps_the_earlier_one(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        process = start(tmp_path, "--out", small / "r", "--steps", 30, "train.keep_checkpoints=50")
        _, errors = process.communicate(timeout=240)
        lines = errors.strip().splitlines()
        assert process.returncode == 2, lines
        assert lines[-1].startswith("error: ")
        assert "No space left" in lines[-1]
        steps = checkpoint.checkpoint_steps(small / "r" / "checkpoints")
        assert steps
        for step in steps:
            weights(small / "r", step)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--subsample", "0"], ["train.subsample"]),
        (["--subsample", "1000000"], ["train.subsample"]),
        (["--subsample", "abc"], ["--subsample"]),
        (["--steps", "0"], ["train.steps"]),
        (["--data", "nowhere.lmdb"], ["nowhere.lmdb"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "demo"]),
        (["model.chanels=3"], ["model.chanels", "model.channels"]),
        (["train.batch_size=many"], ["train.batch_size"]),
        (["nonsense"], ["nonsense"]),
        (["--sorcery"], ["--sorcery"]),
        (["--device", "cuda"], ["cuda"]),
    ],
)
def test_train_names_mistakes_and_changes_nothing(command, tmp_path, arguments, parts):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert_one_line_error(command("train", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_train_refuses_a_folder_that_is_not_its_own(command, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("precious")
    assert_one_line_error(command("train", "--out", "r", *TINY), "r is not empty")
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["thesis.txt"]


def test_train_refuses_other_settings_in_the_same_run(command, tmp_path):
    assert command("train", "--out", "r", "--steps", 1, *TINY).returncode == 0
    before = (tmp_path / "r" / "config.yaml").read_text()
    assert_one_line_error(command("train", "--out", "r", *TINY, "model.channels=12"), "model.channels: 8 -> 12")
    assert (tmp_path / "r" / "config.yaml").read_text() == before


@pytest.fixture(scope="module")
def trained(points_run, tmp_path_factory):
    return copy_of(points_run, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--res", "0"], ["--res", "0"]),
        (["--res", "abc"], ["--res", "abc"]),
        (["--n", "0"], ["--n"]),
        (["--batch", "-1"], ["--batch"]),
        (["--batch", "0"], ["--batch 0"]),
        (["--tile", "²"], ["--tile ²"]),
        (["--res", "99999999999999999999"], ["--res", "at most 1000000"]),
        (["--res", "99999", "--steps", "1"], ["out of memory"]),
        (["--steps", "0"], ["--steps"]),
        (["--steps", "5000"], ["--steps", "1000"]),
        (["--eta", "2"], ["--eta"]),
        (["--variance", "large", "--sampler", "ddpm"], ["--variance large", "posterior or beta"]),
        (["--truncation", "-1"], ["--truncation"]),
        (["--sampler", "magic"], ["--sampler"]),
        (["--checkpoint", "77"], ["--checkpoint"]),
        (["--run", "nowhere"], ["nowhere"]),
    ],
)
def test_sample_names_mistakes(command, trained, tmp_path, arguments, parts):
    run = [] if "--run" in arguments else ["--run", trained]
    assert_one_line_error(command("sample", *run, *arguments, "--out", "o"), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["weights", "config", "empty", "other"])
def test_sample_names_a_damaged_run(command, trained, tmp_path, damage):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    file = run / "checkpoints" / "00000002" / "ema_denoiser.safetensors"
    if damage == "weights":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "config":
        (run / "config.yaml").unlink()
    elif damage == "empty":
        shutil.rmtree(run / "checkpoints")
    else:
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("channels: 8", "channels: 16"))
    assert_one_line_error(command("sample", "--run", run, "--out", "o"), str(run))
    assert not (tmp_path / "o").exists()


def test_prepare_names_mistakes_and_changes_nothing(command, photos, tmp_path):
    before = sorted(os.listdir(tmp_path))
    assert_one_line_error(command("prepare-data", photos, "--out", "o.lmdb", "--size", "0"), "--size")
    assert_one_line_error(command("prepare-data", "nowhere", "--out", "o.lmdb"), "nowhere")
    assert_one_line_error(command("prepare-data", photos, "--out", "o.lmdb", "--crops", "-1"), "--crops")
    assert_one_line_error(command("prepare-data", photos, "--out", "o.lmdb", "--workers", "-1"), "--workers -1")
    assert_one_line_error(command("prepare-data", photos), "--out")
    assert_one_line_error(command("prepare-data", photos, "--out", "o.lmdb", "--max-pixels", "10"), "max_pixels")
    assert sorted(os.listdir(tmp_path)) == before

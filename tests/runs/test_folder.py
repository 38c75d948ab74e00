"""A run's directory: claimed once, its checkpoints chosen and told apart."""

import os

import pytest

from infdiff.config.files import load_config
from infdiff.config.settings import InfinityDiffConfig
from infdiff.data.latents import load_latents
from infdiff.errors import UserError
from infdiff.runs import folder as module
from infdiff.runs.folder import RunFolder
from infdiff.training import checkpoint
from tests.runs.conftest import train_latent


def test_a_directory_belongs_to_one_configuration(tmp_path):
    config = InfinityDiffConfig()
    folder = RunFolder.open_for_training(tmp_path / "x", config)
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "samples"]
    assert folder.config() == config
    RunFolder.open_for_training(tmp_path / "x", config.changed(name="other"))  # may change
    with pytest.raises(UserError, match=r"other settings \(seed: 0 -> 1\): choose another folder"):
        RunFolder.open_for_training(tmp_path / "x", config.changed(seed=1))
    assert folder.config().seed == 0


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="not empty"):
        RunFolder.open_for_training(tmp_path, InfinityDiffConfig())
    with pytest.raises(UserError, match="not empty"):
        RunFolder.open_for_training(tmp_path / "notes.txt", InfinityDiffConfig())


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / ".config.yaml.123-abc.partial").write_text("name: ")
    RunFolder.open_for_training(tmp_path, InfinityDiffConfig())


def test_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RUNS", tmp_path)
    with pytest.raises(UserError, match="no run in"):
        RunFolder.newest()
    for age, name in enumerate(("b", "c", "a")):
        RunFolder.open_for_training(tmp_path / name, InfinityDiffConfig())
        os.utime(tmp_path / name / "config.yaml", (1000 - age, 1000 - age))
    assert RunFolder.newest().path.name == "b"


def test_a_checkpoint_is_chosen_by_name_or_step(run):
    folder = RunFolder(run)
    checkpoint.save_checkpoint(folder.checkpoints, 9, {}, {"validation_loss": 1e6})
    assert [folder.checkpoint(which) for which in ("last", "best", "2", "9")] == [9, 2, 2, 9]
    for which in ("77", "²", "newest", "-2", ""):
        with pytest.raises(UserError, match=f"checkpoint: {which}: choose last, best or one of 2, 9"):
            folder.checkpoint(which)


def test_no_run_and_no_checkpoint_are_named(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        RunFolder(tmp_path).config()
    with pytest.raises(UserError, match="no checkpoint yet"):
        RunFolder(tmp_path).checkpoint()


def test_a_fingerprint_tells_weights_apart_and_nothing_else(run):
    folder = RunFolder(run)
    encoder, every = folder.fingerprint(2, "encoder"), folder.fingerprint(2)
    (folder.checkpoints / "00000002" / "state.json").write_text("{}")
    (folder.checkpoints / "00000002" / "optimizer.safetensors").unlink()
    assert (folder.fingerprint(2, "encoder"), folder.fingerprint(2)) == (encoder, every)
    path = folder.checkpoints / "00000002" / "ema_denoiser.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert folder.fingerprint(2, "encoder") == encoder
    assert folder.fingerprint(2) != every
    with pytest.raises(UserError, match="cannot read"):
        folder.fingerprint(2, "other")


def test_fingerprints_are_those_that_earlier_versions_stored(tmp_path):
    folder = RunFolder(tmp_path)
    (folder.checkpoints / "00000001").mkdir(parents=True)
    for name, content in (("denoiser", b"weights"), ("encoder", b"other weights")):
        (folder.checkpoints / "00000001" / f"ema_{name}.safetensors").write_bytes(content)
    # sha256("other weights"), and sha256 of both files' digests in the order of their names.
    assert folder.fingerprint(1, "encoder") == "53959fa102f31e51"
    assert folder.fingerprint(1) == "63e7dae008fca86c"


def test_latents_of_another_encoder_are_not_used(run):
    train_latent(run, 1)
    folder = RunFolder(run)
    own = folder.latents(2)
    assert load_latents(own.path, folder.fingerprint(2, "encoder")) is not None
    assert load_latents(own.path, "another") is None
    assert load_config(own.config_file).latent.train.steps == 1

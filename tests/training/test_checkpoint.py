"""Checkpoints: complete or absent, the newest and the best are kept."""

import shutil
from contextlib import suppress

import pytest
import torch

from infdiff.errors import UserError
from infdiff.training import checkpoint


def test_checkpoints_keep_the_newest_and_the_best(tmp_path):
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3), (5, 0.2)):
        checkpoint.save_checkpoint(tmp_path, step, {"a": {"x": torch.ones(1)}}, {"validation_loss": loss})
        checkpoint.prune_checkpoints(tmp_path, keep=2)
    assert checkpoint.checkpoint_steps(tmp_path) == [2, 4, 5]
    assert checkpoint.best_step(tmp_path) == 2


def test_without_a_feature_distance_the_validation_loss_decides(tmp_path):
    scores = ({"spectrum": 1.0}, {"spectrum": 3.0}, None, {"broken": 9})
    for step, (loss, found) in enumerate(zip((0.5, 0.1, 0.4, 0.3), scores, strict=True), start=1):
        state = {"validation_loss": loss, "evaluation": found}
        checkpoint.save_checkpoint(tmp_path, step, {"a": {"x": torch.ones(1)}}, state)
    assert checkpoint.best_step(tmp_path) == 2


def test_losses_are_compared_on_the_same_images(tmp_path):
    """The first checkpoint was validated on fewer, an earlier version stored no number, and a stopped run no loss."""
    states = [(0.1, 4), (0.3, None), (0.4, 8), (0.5, 8), (None, 0)]
    for step, (loss, images) in enumerate(states, start=1):
        state = {"validation_loss": loss} | ({} if images is None else {"validation_images": images})
        checkpoint.save_checkpoint(tmp_path, step, {"a": {"x": torch.ones(1)}}, state)
    assert checkpoint.best_step(tmp_path) == 2
    shutil.rmtree(tmp_path / "00000002")
    assert checkpoint.best_step(tmp_path) == 3


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, 1, {"a": {"x": torch.ones(1)}}, {})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(UserError, match=r"No space left.*step 1 is kept"):
        checkpoint.save_checkpoint(tmp_path, 2, {"a": {"x": torch.ones(1)}}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]


def test_weights_are_read_under_their_earlier_names(tmp_path):
    weight = torch.arange(3.0)
    names = ("conditioning.code.weight", "adam.denoiser.conditioning.code.bias", "decode.code.weight")
    checkpoint.save_checkpoint(tmp_path, 1, {"net": {name: weight.clone() for name in names}}, {})
    found = checkpoint.load_tensors(tmp_path, 1, "net")
    assert set(found) == {
        "conditioning.latent.weight",
        "adam.denoiser.conditioning.latent.bias",
        "decode.code.weight",
    }
    assert all(torch.equal(tensor, weight) for tensor in found.values())


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("first", ["state.json", "a.safetensors"])
def test_a_checkpoint_that_was_deleted_in_part_counts_no_more(tmp_path, monkeypatch, first):
    """As by a kill between two files that are deleted."""

    def delete_one_file(folder, **options):
        if folder.exists():
            (folder / first).unlink()
            raise Killed

    for step in (1, 2, 3):
        checkpoint.save_checkpoint(tmp_path, step, {"a": {"x": torch.ones(1)}}, {"validation_loss": 1 / step})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", delete_one_file)
        with pytest.raises(Killed):
            checkpoint.prune_checkpoints(tmp_path, keep=1)
    assert checkpoint.checkpoint_steps(tmp_path) == [2, 3]
    assert checkpoint.best_step(tmp_path) == 3
    checkpoint.save_checkpoint(tmp_path, 4, {"a": {"x": torch.ones(1)}}, {"validation_loss": 0.1})
    checkpoint.prune_checkpoints(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004"]


def test_a_checkpoint_that_is_written_again_is_never_half_there(tmp_path, monkeypatch):
    def fail(folder, **options):
        if folder.exists():
            raise Killed

    checkpoint.save_checkpoint(tmp_path, 1, {"a": {"x": torch.ones(1)}}, {"validation_loss": 1.0})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", fail)
        with pytest.raises(Killed):
            checkpoint.save_checkpoint(tmp_path, 1, {"a": {"x": torch.zeros(1)}}, {"validation_loss": 0.5})
    assert checkpoint.checkpoint_steps(tmp_path) == []
    checkpoint.save_checkpoint(tmp_path, 1, {"a": {"x": torch.zeros(1)}}, {"validation_loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_a_flipped_bit_of_a_state_is_an_error(tmp_path):
    checkpoint.save_checkpoint(tmp_path, 1, {}, {"validation_loss": 0.25, "evaluation": {"kid": 1e-3}})
    file = tmp_path / "00000001" / "state.json"
    whole = file.read_bytes()
    read = checkpoint.load_state(tmp_path, 1)
    assert read == {"step": 1, "validation_loss": 0.25, "evaluation": {"kid": 1e-3}}
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(checkpoint.DamagedCheckpointError):
            assert checkpoint.load_state(tmp_path, 1).items() >= read.items()  # a bit of the checksum's own name
    file.write_bytes(whole.replace(b"0.25", b"0.35"))
    with pytest.raises(UserError, match=r"state.json is damaged \(its checksum"):
        checkpoint.load_state(tmp_path, 1)


def test_a_damaged_state_of_an_old_checkpoint_does_not_end_a_training(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save_checkpoint(tmp_path, step, {}, {"validation_loss": step})
    (tmp_path / "00000001" / "state.json").write_text("{")
    with pytest.raises(UserError, match="00000001"):
        checkpoint.best_step(tmp_path)
    checkpoint.prune_checkpoints(tmp_path, keep=1)
    assert checkpoint.checkpoint_steps(tmp_path) == [2, 3]

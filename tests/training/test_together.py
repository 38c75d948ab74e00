"""Several processes train as one does: the same draws, losses, statistics and weights to rounding."""

import json
import signal
import time

import numpy as np
import pytest
import torch

from infdiff import processes
from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.nn.standardize import Standardize
from infdiff.training import checkpoint
from tests.conftest import ROOT, assert_one_line_error, command_in, pixels
from tests.together import finish, start
from tests.training import train_together

# Points train longest; for the others fewer steps say the same.
STEPS = {"points": 24, "muon": 12, "mixture": 12, "tuned": 12, "latent": 12}
KINDS = tuple(STEPS)
CALLS = (("fsdp", 2), ("ddp", 2), ("fsdp", 4))  # one after the other, with how many processes


def together(count, folder, steps, kinds, parallel="auto", **options):
    """steps: of each kind, or at most so many of all."""
    calls = [f"{kind}={min(STEPS[kind], steps)}" for kind in kinds]
    codes, outputs = finish(start(count, [train_together.__file__, folder, parallel, *calls], folder, **options))
    assert codes == [0] * count, outputs
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train_together.main(folder, STEPS)
    return folder


def records(folder, kind):
    return [json.loads(line) for line in (folder / kind / "log.jsonl").read_text().splitlines()]


def values(folder, kind, key):
    return torch.tensor([record[key] for record in records(folder, kind) if key in record], dtype=torch.float64)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_losses_are_those_of_one_process(alone, tmp_path, count):
    kinds = KINDS if count == 2 else ("points", "mixture")
    together(count, tmp_path, max(STEPS.values()), kinds, afresh=True)
    for kind in kinds:
        for key in ("loss", "validation_loss"):
            expected, found = values(alone, kind, key), values(tmp_path, kind, key)
            assert len(found) == len(expected) > 0
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        norms = values(alone, kind, "gradient_norm")
        torch.testing.assert_close(values(tmp_path, kind, "gradient_norm"), norms, rtol=1e-3, atol=1e-6)
    # Samples are shared, too: those of a small evaluation, and of the previews after the last step.
    (expected,), (found,) = (evaluations(folder) for folder in (alone, tmp_path))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for kind in ("points", "mixture"):
        sheets = [tmp_path / kind / "samples" / path.name for path in (alone / kind / "samples").iterdir()]
        assert len(sheets) == (2 if kind == "points" else 1)
        for sheet in sheets:
            same_pictures(sheet, alone / kind / "samples" / sheet.name)


def evaluations(folder):
    return [record["evaluation"] for record in records(folder, "points") if "evaluation" in record]


def same_pictures(found, expected):
    """The same but for rounding, in the columns that there was time for in both."""
    found, expected = pixels(found), pixels(expected)
    width = min(found.shape[1], expected.shape[1])
    assert width >= 16
    assert np.abs(found[:, :width] - expected[:, :width]).max() <= 3


@pytest.mark.parametrize("counts", [(2,), pytest.param((4, 2), marks=pytest.mark.long)])
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path, counts):
    for number, count in enumerate(counts, start=1):
        together(count, tmp_path, 8 * number, ["points"])
    train_together.main(tmp_path, {"points": 24})
    losses = values(tmp_path, "points", "loss")
    assert len(losses) == 24
    torch.testing.assert_close(losses, values(alone, "points", "loss"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("calls", [(("fsdp", 2),), pytest.param(CALLS, marks=pytest.mark.long)])
def test_sharded_networks_train_as_one_process_does(alone, tmp_path, calls):
    """Each process holds a part of the networks; a run goes on with them complete, and the other way round."""
    kinds, each = (("points", "muon") if len(calls) == 1 else ("points", "muon", "mixture", "latent")), 6
    for number, (parallel, count) in enumerate(calls, start=1):
        together(count, tmp_path, each * number, kinds, parallel)
    steps = each * (len(calls) + 1)
    train_together.main(tmp_path, {kind: min(STEPS[kind], steps) for kind in kinds})
    for kind in kinds:
        for key, limits in (("loss", {"rtol": 0, "atol": 1e-5}), ("gradient_norm", {"rtol": 1e-3, "atol": 1e-6})):
            found = values(tmp_path, kind, key)
            assert len(found) == min(STEPS[kind], steps)
            torch.testing.assert_close(found, values(alone, kind, key)[: len(found)], **limits)
    assert values(tmp_path, "points", "gradient_norm").max() > 1, "nothing was clipped"
    modules = build_modules(load_config("demo", train_together.TINY))
    complete = sum(4 * parameter.numel() for module in modules.values() for parameter in module.parameters())
    for rank in range(calls[-1][1]):
        weights, moments, ema = json.loads((tmp_path / "points" / f"held-{rank}.json").read_text())
        assert max(weights, moments / 2, ema) < 1.15 * complete / calls[-1][1]


def test_one_process_that_is_asked_to_stop_stops_all_at_one_step(tmp_path):
    started = start(2, [train_together.__file__, tmp_path, "auto", "points=100000"], tmp_path)
    log = tmp_path / "points" / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < 3:
        assert all(process.poll() is None for process in started), finish(started)
        time.sleep(0.1)
    started[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(started)
    assert codes == [143, 143], outputs
    (step,) = checkpoint.checkpoint_steps(tmp_path / "points" / "checkpoints")
    assert records(tmp_path, "points")[-1]["step"] == step


@pytest.mark.parametrize("gone", [0, 1])
def test_a_process_that_dies_ends_the_others_in_one_line(gone, tmp_path):
    script = [ROOT / "scripts/train.py", "--out", "r", *train_together.TINY, "train.steps=100000", "train.log_every=1"]
    started = start(2, script, tmp_path)
    log = tmp_path / "r" / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < 8:
        assert all(process.poll() is None for process in started), finish(started)
        time.sleep(0.1)
    started[gone].kill()
    codes, outputs = finish(started)
    assert (codes[gone], codes[1 - gone]) == (-signal.SIGKILL, 2)
    last = outputs[1 - gone][1].splitlines()[-1]
    assert last.startswith(("error: ", "error in process 1: ")[gone == 0])
    assert "another process of this training is gone (" in last
    assert "Traceback" not in outputs[1 - gone][1]
    kept = checkpoint.checkpoint_steps(tmp_path / "r" / "checkpoints")
    assert kept[-1] >= records(tmp_path, "r")[-1]["step"] - 4  # train.checkpoint_every=3


def test_without_torchrun_everything_is_ones_own():
    with processes.together(torch.device("cpu")) as place:
        assert place == processes.ALONE
    rows = torch.randn(6, 3)
    assert processes.own_rows(rows) is rows
    assert processes.own_range(6) == range(6)
    assert processes.same_everywhere("a")
    assert torch.equal(processes.moments(rows)[1], rows.var(dim=0))
    assert Standardize(3).training


def test_what_cannot_be_shared_is_one_line_of_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = command_in(tmp_path)
    for name, option in (("superres", "--run"), ("prepare-data", "--out")):
        assert_one_line_error(command(name, "x", option, "y"), f"{name} works in one process", "torchrun")
    monkeypatch.setenv("RANK", "1")
    result = command("superres", "--run", "y")
    assert (result.returncode, result.stderr) == (2, "")


def test_a_batch_that_does_not_divide_is_one_line(tmp_path):
    script = [ROOT / "scripts" / "train.py", "--steps", 1, "--out", "r", *train_together.TINY, "train.batch_size=5"]
    codes, outputs = finish(start(2, script, tmp_path))
    assert codes == [2, 2]
    (_, first), (_, second) = outputs
    assert first == "error: the batch size at 16 pixels: 2 processes cannot share 5 evenly: choose a multiple of 2\n"
    assert second == ""
    assert not (tmp_path / "r").exists()


def test_other_settings_in_another_process_are_one_line(tmp_path):
    script = ["scripts/train.py", "--out", tmp_path / "r", *train_together.TINY]
    codes, outputs = finish(start(2, [*script, "--steps"], ROOT, own=[["1"], ["2"]]))
    assert codes == [2, 2]
    assert (
        outputs[0][1] == "error: the processes have different settings: give every machine the same command and files\n"
    )
    assert outputs[1][1] == ""

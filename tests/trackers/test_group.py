"""What trackers get: every row of the log once, whatever was killed, and training goes on without them."""

import importlib
import json
import sys

import pytest
from PIL import Image

from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.trackers import Trackers, require_trackers, tracking
from infdiff.trackers.tracker import Start
from infdiff.training.log import Log, read_log
from tests.conftest import TINY, assert_one_line_error
from tests.training.test_trainer import SETTINGS, make


class Noted:
    """A tracker that keeps what it gets, and fails at one step."""

    def __init__(self, fails_at=None):
        self.got, self.pictures, self.closed, self.fails_at = [], [], 0, fails_at

    def scalars(self, step, values):
        if step == self.fails_at:
            raise ConnectionError("no route\nto the host")
        self.got.append((step, dict(values)))

    def image(self, step, name, path):
        self.pictures.append((step, name, path))

    def close(self):
        self.closed += 1


@pytest.fixture
def noted(monkeypatch):
    """Trackers of every name, as they are opened."""
    opened = []

    def open_noted(name, start):
        opened.append(Noted())
        return opened[-1]

    monkeypatch.setattr("infdiff.trackers.group._open", open_noted)
    return opened


def test_a_tracker_gets_the_numbers_of_every_row(noted, tmp_path):
    make(tmp_path, SETTINGS.changed(log=("jsonl", "tensorboard"))).run()
    rows = read_log(tmp_path / "log.jsonl")
    assert len(rows) == len(noted[0].got) == 9  # six of losses, three of validation
    for row, (step, values) in zip(rows, noted[0].got, strict=True):
        assert row == {"step": step} | values
    assert noted[0].closed == 1


def test_inner_values_are_named_by_their_path_and_what_is_no_number_is_left_out(tmp_path):
    tracker, said = Noted(), []
    trackers = Trackers({"x": tracker}, said.append)
    inner = {"8x8": 1.0, "16x16": None}
    trackers.record({"step": 3, "loss": float("nan"), "skipped": 0, "losses": inner, "done": True, "note": "text"})
    assert tracker.got == [(3, {"skipped": 0, "losses/8x8": 1.0})]
    trackers.images(3, [tmp_path / "samples-00000003.png"])
    assert tracker.pictures == [(3, "samples", tmp_path / "samples-00000003.png")]


def test_a_tracker_that_fails_is_dropped_with_one_line_and_the_others_go_on():
    bad, good, said = Noted(fails_at=2), Noted(), []
    trackers = Trackers({"bad": bad, "good": good}, said.append)
    for step in (1, 2, 3):
        trackers.record({"step": step, "loss": 0.5})
    trackers.close()
    assert [step for step, _ in bad.got] == [1]
    assert [step for step, _ in good.got] == [1, 2, 3]
    assert said == ["warning: bad gets no more of this run's log: no route"]
    assert (bad.closed, good.closed) == (0, 1)


def test_previews_are_shown_to_trackers(noted, tmp_path):
    class Preview:
        most = 8

        def worth(self, count):
            return 0

        def pictures(self, step):
            return [path for path in [tmp_path / f"samples-{step:08d}.png"] if path.exists()]

        def __call__(self, step, modules, count, on_progress):
            Image.new("RGB", (4, 4)).save(tmp_path / f"samples-{step:08d}.png")

    options = {"sample_every": 5, "preview": Preview(), "clock": lambda: 0.0}
    make(tmp_path, SETTINGS.changed(log=("wandb",)), **options).run()
    assert [(step, name) for step, name, _ in noted[0].pictures] == [(5, "samples"), (10, "samples"), (12, "samples")]


def test_only_the_first_process_opens_trackers(noted, tmp_path):
    for writes in (False, True):
        with Log(tmp_path / "log.jsonl", 0, writes=writes).followed(("wandb",), print):
            assert len(noted) == int(writes)


def test_a_finished_run_opens_none(noted, tmp_path):
    settings = SETTINGS.changed(log=("wandb",))
    make(tmp_path, settings).run()
    make(tmp_path, settings).run()
    assert len(noted) == 1


def test_weights_do_not_depend_on_trackers(noted, tmp_path):
    for name in ("jsonl", "trackio"):
        make(tmp_path / name, SETTINGS.changed(log=(name,))).run()
    files = [
        (tmp_path / name / "checkpoints" / "00000012" / "net.safetensors").read_bytes() for name in ("jsonl", "trackio")
    ]
    assert files[0] == files[1]


def test_a_run_keeps_its_name_and_a_new_tracker_begins_at_the_checkpoint(tmp_path):
    start = Start(tmp_path / "runs" / "x", 4, 9)
    start.folder.mkdir(parents=True)
    name, sent = start.identity("wandb")
    assert (len(name), sent) == (8, 0)
    assert start.identity("wandb") == (name, 9)
    assert start.identity("trackio")[1] == 0
    assert json.loads((start.folder / "trackers.json").read_text()).keys() == {"wandb", "trackio"}
    assert start.name == "x"
    assert Start(start.folder / "latents" / "00000012", 0, 0).name == "x-latents-00000012"
    (start.folder / "trackers.json").write_text("[")
    with pytest.raises(UserError, match="is damaged"):
        start.identity("wandb")


def test_a_package_that_is_missing_is_one_line(command, monkeypatch):
    for name in ("tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        result = command("train", "--steps", 2, *TINY, f"train.log=[jsonl, {name}]")
        assert_one_line_error(result, f"train.log: {name} is not installed", f"pip install 'infdiff[{name}]'")


def test_bad_names_are_one_line(command):
    for value in ("[tensorbord]", "tensorboard", "[1]", "3"):
        result = command("train", "--steps", 2, *TINY, f"train.log={value}")
        assert_one_line_error(result, "train.log", "want a list of some of jsonl, tensorboard, wandb, trackio")
    assert load_config("demo", ["train.log=[jsonl, jsonl, wandb]"]).train.log == ("jsonl", "wandb")


def test_what_cannot_be_opened_is_one_line_and_what_was_open_is_closed(monkeypatch, tmp_path):
    first = Noted()

    class Refuses:
        def __init__(self, start):
            raise RuntimeError("no API key\nlog in")

    modules = {
        "tensorboard_events": type("M", (), {"TensorBoard": lambda start: first}),
        "wandb_run": type("M", (), {"WandB": Refuses}),
    }
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: modules.get(name.rsplit(".", 1)[-1]) or real(name))
    with (
        pytest.raises(UserError, match=r"wandb cannot be used: no API key; or leave"),
        tracking(("tensorboard", "wandb"), Start(tmp_path, 0, 0), print),
    ):
        pass
    assert first.closed == 1


def test_jsonl_needs_nothing():
    require_trackers(("jsonl",), "train")

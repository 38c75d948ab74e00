"""The log of a run and the reports written to it."""

import json

import torch
from tqdm import tqdm

from infdiff.training.log import DelayedScalars, Log, plot_losses, read_log
from infdiff.training.meter import Meter


def test_the_log_forgets_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in (2, 4, 6)) + '{"step": 8, "lo')
    Log(path, resume_step=4)
    assert [r["step"] for r in read_log(path)] == [2, 4]


def test_lines_that_are_damaged_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    damaged = [b'{"step": 2, "loss": \xb1}', b'{"stdp": 3}', b'{"step": "4"}', b"[5]", b"6", b'{"step": 7, "lo']
    path.write_bytes(b"\n".join([b'{"step": 1}', *damaged]))
    Log(path, 9).write({"step": 8})
    assert [record["step"] for record in read_log(path)] == [1, 8]


def test_scalars_arrive_in_order():
    scalars = DelayedScalars()
    values = torch.tensor([1.0, 2.0])
    scalars.push(1, values, "a")
    scalars.push(2, values + 1)
    values += 9  # a copy was pushed
    assert scalars.ready(2) == [(1, "a", [1.0, 2.0]), (2, "", [2.0, 3.0])]
    assert scalars.ready(2) == []


def test_a_report_has_means_and_the_pace_since_the_last_one(tmp_path):
    times = iter([0.0, 4.0, 4.0, 5.0, 5.0])
    log = Log(tmp_path / "log.jsonl", 0)
    meter = Meter(log, 10, clock=lambda: next(times))
    with tqdm(total=20, disable=True) as bar:
        meter.add("", 1.0, 0.5)
        meter.add("", 3.0, 1.5)
        meter.report(12, 8, 0.1, 0, bar, 20)
        meter.report(13, 16, 0.1, 1, bar, 20)
    first, second = read_log(tmp_path / "log.jsonl")
    assert first == {
        "step": 12,
        "loss": 2.0,
        "gradient_norm": 1.0,
        "learning_rate": 0.1,
        "skipped": 0,
        "images_per_second": 2.0,
    }
    assert (second["loss"], second["skipped"], second["images_per_second"]) == (None, 1, 8.0)


def test_a_log_becomes_a_plot(tmp_path):
    log = Log(tmp_path / "log.jsonl", 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step, "validation_loss": None if step < 3 else 0.5})
    plot_losses(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

"""Parts run one after the other: what fails or hangs is noted, and nothing stops the next."""

import json
import sys
import time

import pytest
import torch

from infdiff.commands import gpu_check
from infdiff.gpu_check import run
from infdiff.gpu_check.parts import Part
from infdiff.gpu_check.run import Outcome, outcome_of, run_parts
from tests.conftest import assert_one_line_error


def part(name, program, **options):
    return Part(name, f"about {name}", (sys.executable, "-c", program), **({"limit": 60} | options))


HANGS = "import time; print('hanging', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HANGS}"
SAVES = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); {HANGS}"


def test_what_fails_or_hangs_does_not_stop_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_GRACE", 3)
    parts = [
        part("good", "print('fine')"),
        part("bad", "import sys; print('first'); sys.exit('the reason')"),
        part("hangs", HANGS, limit=2),
        part("stubborn", STUBBORN, limit=2, law=True),
        part("trains", SAVES, limit=4, stops=True),
        part("absent", "", missing="ncu is not installed"),
        Part("lost", "about", ("/nowhere/program",)),
        part("last", "print('last')"),
    ]
    said, start = [], time.monotonic()
    run_parts(parts, tmp_path, say=said.append)
    assert time.monotonic() - start < 60
    found = {p.name: outcome_of(p, tmp_path) for p in parts}
    assert {name: outcome.state for name, outcome in found.items()} == {
        "good": run.DONE,
        "bad": run.FAILED,
        "hangs": run.TIMED_OUT,
        "stubborn": run.TIMED_OUT,
        "trains": run.DONE,
        "absent": run.MISSING,
        "lost": run.FAILED,
        "last": run.DONE,
    }
    assert (found["bad"].exit_code, found["bad"].why) == (1, "the reason")
    assert found["absent"].why == "ncu is not installed"
    assert "does not start" in found["lost"].why
    assert (tmp_path / "good.txt").read_text() == "fine\n"
    assert (tmp_path / "hangs.txt").read_text() == "hanging\n"
    assert {p.name for p in parts if found[p.name].breaks_a_law(p)} == {"bad", "stubborn", "lost"}
    assert len(said) == 16


def test_what_is_done_is_not_run_again_unless_asked(tmp_path):
    counts = tmp_path / "counts"
    counting = f"open({str(counts)!r}, 'a').write('x')"
    good, bad = part("good", counting), part("bad", f"{counting}; raise SystemExit(1)")
    for _ in range(2):
        run_parts([good, bad], tmp_path)
    assert counts.read_text() == "xxx", "the one that failed is tried again"
    run_parts([good], tmp_path, again=True)
    assert counts.read_text() == "xxxx"
    (tmp_path / "good.outcome.json").write_text("{")
    assert outcome_of(good, tmp_path) is None
    run_parts([good], tmp_path)
    assert counts.read_text() == "xxxxx"


def test_numbers_of_an_earlier_attempt_are_not_taken_for_a_later_one(tmp_path):
    (tmp_path / "ops.json").write_text("{}")
    (tmp_path / "run").mkdir()
    run_parts([part("ops", "raise SystemExit(1)"), part("training", "", stops=True)], tmp_path)
    assert not (tmp_path / "ops.json").exists()
    assert not (tmp_path / "run").exists()


def test_the_outcome_keeps_the_command(tmp_path):
    one = part("one", "")
    run_parts([one], tmp_path)
    assert json.loads((tmp_path / "one.outcome.json").read_text())["command"] == list(one.command)


@pytest.mark.parametrize(
    ("state", "law", "broken"),
    [
        (run.DONE, True, False),
        (run.MISSING, True, False),
        (run.TIMED_OUT, True, True),
        (run.TIMED_OUT, False, False),
        (run.FAILED, False, True),
    ],
)
def test_a_slow_number_breaks_no_law(state, law, broken):
    assert Outcome(state).breaks_a_law(Part("x", "", (), law=law)) is broken


def test_the_command_shows_a_table_and_its_exit_code_is_that_of_the_laws(command, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    parts = [part("good", ""), part("bad", "raise SystemExit('wrong numbers')", law=True)]
    monkeypatch.setattr(gpu_check, "all_parts", lambda folder, data=None: parts)
    result = command("gpu-check", "--parts", "good", "--out", "check")
    assert result.returncode == 0, result.stderr
    assert "not run" in result.stdout
    result = command("gpu-check", "--out", "check")
    assert result.returncode == 1
    assert "1/2 good: done before" in result.stdout
    assert "BROKEN  wrong numbers" in result.stdout
    assert (tmp_path / "check" / "table.txt").read_text() in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_a_gpu_it_is_one_line(command, tmp_path):
    assert_one_line_error(command("gpu-check"), "there is no GPU to check", "PyTorch sees no CUDA device")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_commands_and_runs_nothing(command, tmp_path):
    result = command("gpu-check", "--dry-run", "--data", "photos.lmdb")
    assert result.returncode == 0, result.stderr
    assert "benchmark ops --quick --device cuda" in result.stdout
    assert "--data photos.lmdb" in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert_one_line_error(command("gpu-check", "--parts", "ops,nothing"), "--parts ops,nothing", "no part nothing")

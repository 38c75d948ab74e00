"""`infdiff ablate` as users run it."""

import json

import pytest

from tests.conftest import TINY, assert_one_line_error

ROWS = ["--rows", "all pixels; 1/4 of the pixels"]
OPTIONS = ["--table", "∞-3", *ROWS, "--budget", "1s", "--n", 6, "--device", "cpu", "--out", "abl"]
# Without those that the rows themselves set.
SMALL = [s for s in TINY if not s.startswith(("data.size", "train.subsample", "model.grid_size", "model.sketch_side"))]
SMALL += ["data.size=16", "model.grid_size=8", "model.sketch_side=4", "data.flip=false"]


@pytest.fixture
def quick(monkeypatch):
    """Every row has four steps."""
    monkeypatch.setattr("infdiff.ablation.queue.seconds_a_step", lambda config, device: 0.25)


def test_rows_are_trained_and_compared_and_a_second_call_changes_nothing(command, tmp_path, quick):
    result = command("ablate", *OPTIONS, *SMALL)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "abl"
    plan = json.loads((folder / "plan.json").read_text())
    assert {name: row["steps"] for name, row in plan["rows"].items()} == {"all pixels": 4, "1/4 of the pixels": 4}
    table = (folder / "table.md").read_text()
    assert "| all pixels | 4 | 250 |" in table
    assert "| 1/4 of the pixels | 4 | 250 |" in table
    assert (folder / "report.html").exists()
    results = json.loads((folder / "results.json").read_text())["results"]
    assert [row["run"] for row in results] == ["all pixels", "1/4 of the pixels"]
    log = (folder / "all-pixels" / "log.jsonl").read_text()
    assert command("ablate", *OPTIONS, *SMALL).returncode == 0
    assert (folder / "all-pixels" / "log.jsonl").read_text() == log
    assert (folder / "table.md").read_text() == table
    assert_one_line_error(command("ablate", *OPTIONS, *SMALL, "--seed", 1), "abl", "another seed", "--out")
    assert_one_line_error(command("ablate", *OPTIONS, *SMALL, "--budget", "4 steps"), "another budget")


def test_the_rows_of_a_table_are_listed(command, tmp_path):
    result = command("ablate", "--table", "dfu-1", "--list")
    assert result.returncode == 0
    assert "FNO U-Net: fno_landscapes_64" in result.stdout
    assert "FID 160 14.8" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--table", "∞-9"], ["--table", "infinity-3"]),
        (["--rows", "1/3"], ["--rows 1/3", "all pixels"]),
        (["--budget", "soon"], ["--budget soon", "30m"]),
        (["--n", "0"], ["--n"]),
        (["train.stepz=3"], ["train.stepz"]),
        (["--data", "nowhere.lmdb"], ["nowhere.lmdb"]),
    ],
)
def test_mistakes_are_named_and_change_nothing(command, tmp_path, arguments, parts):
    assert_one_line_error(command("ablate", "--table", "infinity-3", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []

"""`infdiff COMMAND`: what it lists, what it refuses, and that the scripts are the same commands."""

import os
import runpy
import signal
import subprocess
import sys

import pytest
import torch

from infdiff import commands
from infdiff.command_names import COMMANDS, as_called, module_of
from infdiff.shipped import CONFIG_FOLDER, find_config
from tests.conftest import ROOT, TINY, restored_process


@pytest.fixture(autouse=True)
def process():
    with restored_process():
        yield


SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_every_command_has_a_line_of_help_and_a_script():
    shown = python("-m", "infdiff", "--help", cwd=ROOT)
    assert (shown.returncode, shown.stderr) == (0, "")
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.stdout.splitlines() if line[:2] == "  "}
    assert listed == COMMANDS
    assert sorted(module_of(name) for name in COMMANDS if name != "doctor") == SCRIPTS


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_the_overview_loads_no_pytorch(arguments):
    code = f"import sys; from infdiff.commands import main; main({arguments}); sys.exit('torch' in sys.modules)"
    assert python("-c", code, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("given", "hint"),
    [("trian", "did you mean 'train'?"), ("prepare_data", "did you mean 'prepare-data'?"), ("xyz", "infdiff --help")],
)
def test_an_unknown_command_is_one_line(given, hint, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main([given])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: unknown command '{given}'")
    assert hint in line


def test_help_shows_the_way_that_the_command_was_called():
    text = (
        "infdiff train-latent; infdiff train; torchrun --nproc 2 -m -- infdiff evaluate; infdiff doctor; infdiff, too"
    )
    assert as_called(text, "infdiff train") == text
    assert as_called(text, "python scripts/sample.py") == (
        "python scripts/train_latent.py; python scripts/train.py; torchrun --nproc 2 -- scripts/evaluate.py; "
        "python -m infdiff.doctor; infdiff, too"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: infdiff {name} ")
    assert f"\n  infdiff {name} " in shown or name == "doctor"


def test_a_command_called_by_a_test_changes_nothing_in_its_process(command):
    def state():
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        return os.getcwd(), dict(os.environ), handlers, torch.get_num_threads(), torch.get_rng_state().tolist()

    before = state()
    assert command("train", "--steps", 1, "--out", "r", *TINY).returncode == 0
    assert state() == before
    assert command("train", "--steps", 1, "--out", "r", *TINY, "model.channels=12").returncode == 2
    assert state() == before


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_help_with_examples(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python scripts/{name}.py ")
    assert f"\n  python scripts/{name}.py " in shown


def test_a_script_runs_from_anywhere_in_a_checkout_that_is_not_installed(tmp_path):
    """The package that a script runs is the one of its own checkout, even where another is installed."""
    (tmp_path / "infdiff").mkdir()
    (tmp_path / "infdiff" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    shown = python(ROOT / "scripts" / "train.py", "--help", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert shown.returncode == 0, shown.stderr
    assert "\n  python scripts/train.py --subsample 4" in shown.stdout


@pytest.mark.parametrize("given", ["demo", "demo.yaml", "configs/demo.yaml", "configs/demo"])
def test_shipped_configurations_go_by_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder is no configuration
    assert find_config(given) == CONFIG_FOLDER / "demo.yaml"


def test_a_file_comes_before_the_shipped_configuration_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text("")
    assert str(find_config("demo.yaml")) == "demo.yaml"
    assert str(find_config("mine/demo.yaml")) == "mine/demo.yaml"
    assert str(find_config("nowhere")) == "nowhere"

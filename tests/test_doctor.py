"""`python -m infdiff.doctor`: what it says, its verdicts, and that a broken installation does not stop it."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch

from infdiff import doctor, ops
from infdiff.benchmark.operators import OPERATORS
from tests.conftest import Finished, assert_one_line_error, restored_process

CPU = torch.device("cpu")


def run(*arguments, blocked=(), **environment):
    """Run the doctor in its own process, where the packages named in `blocked` cannot be imported."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv[0] = 'doctor';"
        "runpy.run_module('infdiff.doctor', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *arguments]
    where = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=240)


def run_here(*arguments):
    """Run it in this process."""
    out, err = io.StringIO(), io.StringIO()
    with restored_process(), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        doctor.main(arguments)
    return Finished(end.value.code, out.getvalue(), err.getvalue())


def verdict_of(text):
    """operator -> the last words of its lines."""
    found = {}
    for line in text.splitlines()[1:]:
        found.setdefault(line.split()[0], []).append(line.split()[-1])
    return found


def test_it_says_everything_and_every_operator_is_right():
    result = run_here("--device", "cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    environment, routes, verdicts = result.stdout.split("\n\n")
    assert max(map(len, f"{routes}\n{verdicts}".splitlines())) <= 145
    for label in ("infdiff", "Python", "PyTorch", "CUDA driver", "compiler", "kernel cache", "TorchSparse"):
        assert label in environment
    assert torch.__version__ in environment
    for operator in OPERATORS:
        assert operator in routes
        assert operator in verdicts
    assert "WRONG" not in verdicts
    assert set(verdict_of(verdicts.split("\n", 1)[1])) == set(OPERATORS)


def test_each_operator_has_a_route_and_a_reason():
    for line, check in zip(doctor.routes(CPU).splitlines(), doctor.checks(), strict=True):
        route = line.removeprefix(check.operator).strip().removeprefix(check.case).split()
        assert route[0] in ("PyTorch", "lattice", "dense")
        assert len(route) > 4


def test_a_wrong_operator_is_found_and_the_others_are_not_blamed(monkeypatch):
    right = ops.points_to_grid
    monkeypatch.setattr(ops, "points_to_grid", lambda *arguments: right(*arguments) * 1.001)
    text, fine = doctor.verdicts(CPU)
    assert not fine
    found = verdict_of(text)
    assert found.pop("points_to_grid") == ["WRONG"]
    assert {word for words in found.values() for word in words} == {"ok"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_wrong(monkeypatch, value):
    right = ops.resize_kernel
    monkeypatch.setattr(ops, "resize_kernel", lambda *arguments: right(*arguments) + value)
    assert verdict_of(doctor.verdicts(CPU)[0])["resize_kernel"] == ["WRONG"]


def test_a_wrong_gradient_is_found(monkeypatch):
    right = ops.grid_to_points

    def halved(grid, *arguments):
        return right((grid + grid.detach()) / 2, *arguments)

    monkeypatch.setattr(ops, "grid_to_points", halved)
    assert verdict_of(doctor.verdicts(CPU)[0])["grid_to_points"] == ["WRONG"]


def test_an_operator_that_raises_says_so_and_the_rest_runs(monkeypatch, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("no image\nand more")

    monkeypatch.setattr(ops, "inverse_count", broken)
    monkeypatch.setattr(sys, "argv", ["doctor", "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        doctor.main()
    assert stop.value.code == 1
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("inverse_count") and "raised" in line]
    assert line.endswith("raised RuntimeError: no image")
    assert "and more" not in text
    assert "ok" in text


def test_optional_packages_may_be_missing():
    result = run("--device", "cpu", blocked=("cuda", "torchsparse"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for name, option in (("cuda", ""), ("torchsparse", "--no-build-isolation ")):
        assert f"pip install {option}'infdiff[{name}]'" in result.stdout


@pytest.mark.parametrize("name", ["torch", "einops"])
def test_without_a_package_that_all_depends_on_it_says_which(name):
    result = run(blocked=(name,))
    assert result.returncode == 1
    assert result.stderr == ""
    assert f"infdiff.ops      does not load: ModuleNotFoundError: import of {name} halted" in result.stdout


def test_a_probe_that_fails_does_not_stop_the_others(monkeypatch):
    def broken():
        raise OSError("libcuda is damaged")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    text = doctor.environment()
    assert "devices          OSError: libcuda is damaged" in text
    assert "kernel cache" in text


def test_switches_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("INFDIFF_KERNELS", "off")
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "new" / "folder"))
    text = doctor.environment()
    assert "INFDIFF_KERNELS=off" in text
    assert f"{tmp_path / 'new' / 'folder'}, can be written to" in text
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "file"))
    assert f"{tmp_path / 'file'}, cannot be written to (Not a directory)" in doctor.environment()
    assert "INFDIFF_KERNELS=off" in doctor.routes(CPU)


def test_help_and_bad_input():
    result = run_here("--help")
    assert result.returncode == 0
    for part in ("python -m infdiff.doctor", "INFDIFF_KERNELS", "INFDIFF_CACHE"):
        assert part in result.stdout
    assert_one_line_error(run_here("--device", "abacus"), "abacus")

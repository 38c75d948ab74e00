"""Every command of the check is one that its program takes: none is found wrong on a GPU that was waited for."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infdiff import doctor
from infdiff.commands import benchmark, train
from infdiff.commands.benchmark_parser import make_parser
from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.gpu_check import first_launch, recorded_steps
from infdiff.gpu_check.parts import all_parts
from infdiff.methods.checks import check_config
from infdiff.methods.sizes import resolutions
from tests.conftest import COLLECTED, ROOT, TINY, all_tests_collected

PARTS = all_parts(Path("/somewhere/check"), "photos.lmdb")
CPU = torch.device("cpu")


def infdiff_call(part):
    """The arguments after `infdiff`; None for a command of another program."""
    command = list(part.command)
    return command[command.index("infdiff") + 1 :] if "infdiff" in command else None


CALLS = [pytest.param(call, id=part.name) for part in PARTS if (call := infdiff_call(part)) is not None]


@pytest.mark.parametrize("call", CALLS)
def test_its_program_takes_the_command(call):
    name, *arguments = call
    if name == "benchmark":
        given = make_parser(None).parse_args(arguments)
        assert given.device == "cuda"
        if given.WHAT != "ops":
            config = load_config(given.config, given.overrides)
            plan = benchmark.plan_of(given, config, None, CPU)
            assert len(plan.settings) == max(1, len(given.subsample.split(",")) if given.WHAT == "train" else 1)
    elif name == "train":
        given = train.make_parser(None).parse_intermixed_args(arguments)
        assert given.data == "photos.lmdb"
        config = load_config(given.config, given.overrides)
        check_config(config)
        assert list(resolutions(config)) == [(128, 128)], "what the samples are drawn at"
    elif name == "doctor":
        if torch.cuda.is_available():
            pytest.skip("it would run")
        with pytest.raises(SystemExit) as end:
            doctor.main(arguments)
        assert end.value.code == 2, "no device, and no other complaint"
    else:
        importlib.import_module(f"infdiff.commands.{name}").make_parser(None).parse_args(arguments)


def test_every_other_command_is_a_module_or_the_tests():
    others = {part.name for part in PARTS if infdiff_call(part) is None}
    assert others == {"thread", "tests", "graph"}


def test_no_file_with_tests_for_a_gpu_is_forgotten(request):
    (part,) = (part for part in PARTS if part.name == "tests")
    named = {argument for argument in part.command if argument.endswith(".py")}
    marked = {str(path) for path, marks in request.config.stash[COLLECTED].items() if "gpu" in marks}
    assert marked <= named
    if all_tests_collected(request.config):
        assert marked == named


def test_tests_for_a_gpu_are_collected():
    (part,) = (part for part in PARTS if part.name == "tests")
    assert part.missing == ""
    command = [*part.command, "--collect-only", "-p", "no:cacheprovider"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=240)
    assert shown.returncode == 0, shown.stdout
    assert "test_nothing_waits_for_the_host" in shown.stdout
    assert "emulated" not in shown.stdout
    assert str(ROOT) in part.command


def test_names_differ_and_limits_are_short():
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert all(0 < part.limit <= 240 for part in PARTS)
    assert [part.name for part in PARTS if part.stops] == ["training"]


def test_threads_of_their_own_compute_what_the_specification_does(monkeypatch):
    assert first_launch.agrees(CPU)
    monkeypatch.setattr(first_launch.ops, "lattice_index", lambda ids, size: torch.zeros(2, *size, dtype=torch.int32))
    assert not first_launch.agrees(CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_kernels_the_thread_says_so():
    shown = subprocess.run(
        [sys.executable, "-m", "infdiff.gpu_check.first_launch"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (shown.returncode, shown.stderr) == (1, "CUDA kernels do not run: PyTorch sees no CUDA device\n")


def test_steps_are_compared_with_the_same_steps():
    few, again = (recorded_steps.steps_of(CPU, "auto", TINY, count=3) for _ in range(2))
    assert len(few.losses) == 3
    assert few.losses == again.losses
    assert few.ms > 0
    assert recorded_steps.compared(few, again)["largest_difference"] == 0
    other = again._replace(losses=[few.losses[0], few.losses[1] * 1.5, few.losses[2]])
    assert recorded_steps.compared(few, other)["largest_difference"] == pytest.approx(0.5)
    broken = again._replace(losses=[float("nan"), *few.losses[1:]])
    assert recorded_steps.compared(few, broken)["largest_difference"] == float("inf")
    with pytest.raises(UserError, match=r"train.graph: CUDA graphs want a CUDA device"):
        recorded_steps.steps_of(CPU, True, TINY)

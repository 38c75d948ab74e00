"""The parts of a check on a GPU: a command each, in a process of its own, with a limit of time."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_GPU_TESTS = (
    "tests/ops/test_gpu.py",
    "tests/ops/gpu/test_enlarged.py",
    "tests/ops/gpu/test_kernels.py",
    "tests/ops/gpu/test_lists.py",
    "tests/ops/gpu/test_norms.py",
    "tests/ops/test_permuted_pixels.py",
    "tests/training/test_step_gpu.py",
    "tests/ops/test_torchsparse_backend.py",
)
_INFDIFF = (sys.executable, "-m", "infdiff")
_DOCTOR = (*_INFDIFF, "doctor", "--device", "cuda")
# Compiling, the tools and the largest size are given time; most parts need a fraction of it.
_SHORT, _LONG, _TRAINING = 90, 240, 120


@dataclass(frozen=True)
class Part:
    """A command and what is wanted of it.

    limit: in seconds. law: it has to end well; of other parts, which measure, only a crash counts. stops: it is stopped
    at its limit, as planned. missing: why it cannot run here, or "".
    """

    name: str
    about: str
    command: tuple[str, ...]
    limit: int = _SHORT
    law: bool = False
    stops: bool = False
    missing: str = ""


def all_parts(folder: Path, data: str | None = None) -> list[Part]:
    """Return every part in order. folder: of the check's files; data: images to train on (default: the demo's)."""
    run = folder / "run"
    images = () if data is None else ("--data", data)
    train = ("--config", "landscapes_128", *images, "--device", "cuda", "--out", str(run), "train.log_every=20")
    drawn = ("--run", str(run), "--res", "128", "--n", "16", "--device", "cuda", "--out", str(folder / "samples"))
    quarter, eager = ("--subsample", "4"), ("train.compile=false", "train.graph=false")
    one = ("--only", "sparse_depthwise_conv2d", "--quick", "--repeat", "1", "--device", "cuda")
    return [
        Part("doctor", "what is there; every operator against its specification", _DOCTOR, law=True),
        Part("thread", "a thread whose first call of CUDA is a launch", _module("first_launch"), law=True),
        Part("tests", "pytest -m gpu", _pytest(), _LONG, law=True, missing=_no_tests()),
        _with_tool("memcheck", "memory accesses of every kernel", "compute-sanitizer", _sanitizer("memcheck")),
        _with_tool("racecheck", "races in shared memory", "compute-sanitizer", _sanitizer("racecheck")),
        Part("ops", "operators at the target shapes", _measured(folder, "ops", "ops", "--quick"), _LONG),
        _with_tool("ncu", "counters of the convolution's kernels", "ncu", _profiler(folder, *one), law=False),
        Part(
            "graph",
            "steps as CUDA graphs against the same one kernel at a time: losses and times",
            (*_module("recorded_steps"), "--json", str(folder / "graph.json")),
            _TRAINING,
            law=True,
        ),
        Part("train", "training steps, one kernel at a time", _training(folder, "train", *quarter, *eager)),
        Part(
            "train-graph",
            "training steps as CUDA graphs",
            _training(folder, "train-graph", *quarter, "train.compile=false", "train.graph=true"),
        ),
        Part(
            "train-compiled",
            "training steps, compiled",
            _training(folder, "train-compiled", *quarter, "train.compile=true"),
            _LONG,
        ),
        Part(
            "train-densities",
            "training steps at other densities",
            _training(folder, "train-densities", "--subsample", "1,2,8,16"),
            _LONG,
        ),
        *(
            Part(f"sample-{size}", f"sampling steps, {size} pixels x {batch}", _sampling(folder, size, batch))
            for size, batch in ((256, 8), (512, 4), (1024, 1), (2048, 1))
        ),
        Part("training", "a real training", (*_INFDIFF, "train", *train), _TRAINING, law=True, stops=True),
        Part("samples", "images of that training", (*_INFDIFF, "sample", *drawn), law=True),
    ]


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"infdiff.gpu_check.{name}"


def _measured(folder: Path, name: str, *arguments: str) -> tuple[str, ...]:
    return *_INFDIFF, "benchmark", *arguments, "--device", "cuda", "--json", str(folder / f"{name}.json")


def _training(folder: Path, name: str, *arguments: str) -> tuple[str, ...]:
    return _measured(folder, name, "train", "--config", "ffhq_256", *arguments)


def _sampling(folder: Path, size: int, batch: int) -> tuple[str, ...]:
    options = ("--config", "ffhq_256", "--res", str(size), "--batch", str(batch))
    return _measured(folder, f"sample-{size}", "sample", *options)


def _pytest() -> tuple[str, ...]:
    files = tuple(str(_CHECKOUT / name) for name in _GPU_TESTS)
    return sys.executable, "-m", "pytest", "-m", "gpu", "--rootdir", str(_CHECKOUT), "-rs", *files


def _no_tests() -> str:
    if find_spec("pytest") is None:
        return "pytest is not installed: pip install 'infdiff[test]'"
    absent = not all((_CHECKOUT / name).exists() for name in _GPU_TESTS)
    return "the tests are in a checkout alone" if absent else ""


def _sanitizer(tool: str) -> tuple[str, ...]:
    return "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *_DOCTOR


def _profiler(folder: Path, *arguments: str) -> tuple[str, ...]:
    kernels = ("--kernel-name", "regex:sparse_conv", "--launch-skip", "6", "--launch-count", "6")
    return (
        *("ncu", "--set", "basic", "--csv", "--log-file", str(folder / "ncu.csv"), "--target-processes", "all"),
        *(*kernels, *_INFDIFF, "benchmark", "ops", *arguments),
    )


def _with_tool(name: str, about: str, tool: str, command: tuple[str, ...], *, law: bool = True) -> Part:
    """A part that needs a program of NVIDIA's."""
    missing = "" if shutil.which(tool) else f"{tool} is not installed"
    return Part(name, about, command, _LONG, law=law, missing=missing)

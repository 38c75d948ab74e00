"""Shared by all tests: threads, small data, small settings, and two ways to call a command."""

from __future__ import annotations

import _thread
import contextlib
import gc
import io
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff import cli
from infdiff.command_names import module_of
from infdiff.commands import start
from infdiff.ops.gpu import launch
from infdiff.server import Server
from tests.cuda.emulate import Emulator, why_not
from tests.forking import ONE_THREAD, Forked, fork_what_would_be_spawned

ROOT = Path(__file__).resolve().parent.parent


# The files of all tests, those that are not run among them, with the names of the marks on their tests.
COLLECTED = pytest.StashKey[dict[Path, set[str]]]()


def all_tests_collected(config: pytest.Config) -> bool:
    """Whether no part of the tests was asked for."""
    return {Path(argument).resolve() for argument in config.args} == {ROOT / "tests"}


# Only where kernels run do tests marked gpu; elsewhere they are skipped with the reason.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    collected = config.stash[COLLECTED] = {item.path: set() for item in items}
    for item in items:
        collected[item.path].update(mark.name for mark in item.iter_markers())
    reason = launch.why_closed()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"no CUDA kernels here: {reason}"))


def pytest_collection_finish() -> None:
    """Keep what lives as long as the tests, half a million objects, out of collections: commands ask for some."""
    gc.freeze()


# Tests run side by side: one thread each, which also makes sums run in one order.
torch.set_num_threads(1)
fork_what_would_be_spawned()

# Settings under which a training step takes milliseconds.
_SHARED = [
    "data.size=16",
    "model.condition_dim=16",
    "model.grid={kind: unet}",
    "model.grid.channels=8",
    "model.grid.multipliers=[1,2]",
    "model.grid.blocks=1",
    "model.grid.dropout=0.1",
    "train.batch_size=4",
    "train.optimiser=adamw",
    "train.log_every=2",
    "train.checkpoint_every=3",
    "train.sample_every=1000",
    "sample.steps=3",
]
TINY = [
    *_SHARED,
    "model.channels=8",
    "model.kernel_size=3",
    "model.blocks=1",
    "model.z_dim=8",
    "model.sketch_side=4",
    "model.grid_size=8",
    "model.initial_taps=noise",
    "model.gated_input=false",
    "train.subsample=4",
    "train.times=uniform",
    "sample.sampler=ddpm",
    "sample.spacing=time",
    "sample.upscale=none",
    "sample.deblur=auto",
]
# The same for a grid network alone, with EDM; and for DFU.
TINY_EDM = [*_SHARED, "method=edm", "sample.upscale=none", "sample.sampler=heun", "sample.deblur=auto"]
TINY_GRID = [*TINY_EDM, "model.grid.kind=dfu", "model.grid.modes=3"]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """Kernels compiled for the CPU, shared by all workers of one test run."""
    if reason := why_not():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "emulated_kernels"
    folder.mkdir(exist_ok=True)
    return Emulator(folder)


@pytest.fixture
def emulated(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Every operator takes its CUDA kernels, which run on the CPU; `launched` tells which did."""
    emulator.launched.clear()
    monkeypatch.setattr(launch, "launch", emulator.launch)
    monkeypatch.setattr(launch, "serves_points", lambda ids: True)
    return emulator


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve smooth pictures of several sizes."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(12):
        height, width = [(40, 60), (64, 48), (33, 33)][i % 3]
        small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save((folder / "inner" if i % 2 else folder) / f"{i}.png")
    return folder


@dataclass(frozen=True)
class Finished:
    """What a command left behind, in this process or in one of its own."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Finished]


def script_in(folder: Path) -> Command:
    """Runs scripts in a folder, each in a process of its own."""

    def call(name: str, *arguments: object) -> Finished:
        path = ROOT / "scripts" / f"{module_of(name)}.py"
        process = Forked(path, *arguments, folder=folder, environment=os.environ | ONE_THREAD)
        output, errors = process.communicate(timeout=240)
        return Finished(process.wait(), output, errors)

    return call


@pytest.fixture
def script(tmp_path: Path) -> Command:
    """Run a script in an empty folder as a user would: script("train", "--steps", 4)."""
    return script_in(tmp_path)


def command_in(folder: Path) -> Command:
    """Runs commands in a folder and in this process, without the seconds that Python and PyTorch take to start."""

    def call(name: str, *arguments: object) -> Finished:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.chdir(folder), restored_process(), redirect_stdout(out), redirect_stderr(err):
            try:
                start(name, [str(argument) for argument in arguments], f"infdiff {name}")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Finished(code, out.getvalue(), err.getvalue())

    return call


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Put back what a command changes of its process: signals, environment, module path, threads, random state."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads, python_state, numpy_state = torch.get_num_threads(), random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count())
    # The allocator's settings are those of a whole process, and cannot be read to be put back.
    unset = mock.patch.object(cli, "retain_freed_memory")
    path = mock.patch.object(sys, "path", [*sys.path])
    with mock.patch.dict(os.environ), path, torch.random.fork_rng(devices=devices), unset:
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            torch.set_num_threads(threads)
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run a command in an empty folder: command("train", "--steps", 4)."""
    return command_in(tmp_path)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of pages is interrupted, as by Ctrl-C, soon after it has begun to answer."""
    serve, handler = Server.serve, signal.signal(signal.SIGINT, signal.default_int_handler)

    def serve_shortly(self: Server) -> None:
        threading.Timer(0.2, _thread.interrupt_main).start()
        serve(self)

    monkeypatch.setattr(Server, "serve", serve_shortly)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def points_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny network on points after two steps. Tests that write into it take a copy."""
    return trained_run(tmp_path_factory.mktemp("points"), TINY)


@pytest.fixture(scope="session")
def edm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for a grid network alone."""
    return trained_run(tmp_path_factory.mktemp("edm"), TINY_GRID)


def trained_run(folder: Path, settings: list[str]) -> Path:
    """Train two steps with these settings; the run directory."""
    result = command_in(folder)("train", "--steps", 2, "--out", "runs/x", *settings)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "x"


def copy_of(run: Path, folder: Path) -> Path:
    """A run directory copied to runs/x of a folder."""
    return Path(shutil.copytree(run, folder / "runs" / "x"))


def pixels(path: Path) -> np.ndarray:
    """An image file's values (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def assert_one_line_error(result: Finished, *parts: str) -> None:
    """Exit code 2 and one line on stderr that names every part."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]

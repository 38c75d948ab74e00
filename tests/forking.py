"""Scripts in processes of their own that need not start Python and import PyTorch: one that has done so is forked.

All of them have the same hash seed, so where two processes must agree in spite of it, one is started afresh.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# For processes that tests start, which run side by side, too.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Imported once, by the process that is forked. The last ones are imported by others when they first need them.
_IMPORTED = [
    "pytest",
    "infdiff.commands.train",
    "infdiff.commands.train_latent",
    "infdiff.commands.prepare_data",
    "infdiff.commands.sample",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
]


class Forked:
    """A script that runs in a forked process, with as much of subprocess.Popen as tests ask for."""

    def __init__(self, script: Path | str, *arguments: object, folder: Path, environment: Mapping[str, str]) -> None:
        self._printed = Path(tempfile.mkdtemp(prefix="forked-"))
        weakref.finalize(self, shutil.rmtree, self._printed, ignore_errors=True)
        words = [str(script), *map(str, arguments)]
        given = words, str(folder), dict(environment), str(self._printed)
        self._process = ForkServerProcess(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of subprocess: -9 for SIGKILL."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise TimeoutError(f"no end within {timeout} s")
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end. Returns what was printed, and the errors."""
        self.wait(timeout)
        output, errors = ((self._printed / name).read_text() for name in ("out", "err"))
        return output, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_what_would_be_spawned() -> None:
    """Let multiprocessing take that process where it is asked to spawn: workers are as fresh, and at no cost."""
    os.environ.update(ONE_THREAD)  # for that process: the first import of PyTorch reads it
    contexts = multiprocessing.context._concrete_contexts
    contexts["forkserver"].set_forkserver_preload(_IMPORTED)
    contexts["spawn"] = contexts["forkserver"]


def _run(words: Sequence[str], folder: str, environment: dict[str, str], printed: str) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` does, in the forked process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(Path(printed, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = [*words]
    sys.path.insert(0, str(Path(words[0]).parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()

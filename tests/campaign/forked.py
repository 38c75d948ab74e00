"""Commands in forked processes: PyTorch is imported once, so that hundreds of calls cost little."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What commands import when they first need it: a forked child finds it there.
import infdiff.commands.evaluate
import infdiff.commands.inpaint
import infdiff.commands.prepare_data
import infdiff.commands.sample
import infdiff.commands.superres
import infdiff.commands.train
import infdiff.commands.train_latent  # noqa: F401
from infdiff.commands import start

LIMIT = 600.0  # seconds
_ORPHANS = 20.0  # seconds that workers have to see that their parent is gone


@dataclass(frozen=True)
class Ended:
    """How a call ended. code: as of subprocess, -9 for SIGKILL; None: it ran past the limit, and was killed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    orphans: bool = False

    @property
    def one_line(self) -> bool:
        """True for bad input as it should be: exit code 2, and one line on standard error."""
        return self.code == 2 and self.stderr.startswith("error") and self.stderr.count("\n") == 1

    @property
    def last_line(self) -> str:
        return (self.stderr.strip().splitlines() or [""])[-1]

    def wrong(self, allowed: Sequence[int] = (0, 2)) -> str:
        """Describe what no call may do: a traceback, a signal, no end, a process left behind. Else empty."""
        if self.code is None:
            return f"no end within {LIMIT:.0f} s"
        if "Traceback" in self.stderr:
            return f"traceback: {self.last_line}"
        if self.code not in allowed:
            return f"exit code {self.code}: {self.last_line}"
        if self.orphans:
            return "processes left behind"
        if self.code == 2 and not self.last_line.startswith("error"):
            return f"exit code 2 without an error: {self.stderr!r}"
        return ""


class Running:
    """A command that runs in a forked process. before: called there first."""

    def __init__(
        self, folder: Path, name: str, *arguments: object, before: Callable[[], None] = lambda: None, mark: str = ""
    ) -> None:
        self.files = [folder / f".{mark}out", folder / f".{mark}err"]
        for path in self.files:
            path.touch()  # a child may be killed before it does
        self.started = time.perf_counter()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(folder, name, [str(argument) for argument in arguments], *self.files, before)
        self.descriptor = os.pidfd_open(self.pid)

    def runs(self, seconds: float = 0.0) -> bool:
        """Wait for so long at most, and return True if it runs on."""
        return not select.select([self.descriptor], [], [], seconds)[0]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, limit: float = LIMIT) -> Ended:
        """Wait for the end, and kill it after the limit."""
        late = self.runs(limit)
        if late:
            self.send(signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.descriptor)
        seconds = time.perf_counter() - self.started
        orphans = not _alone(self.pid)
        if orphans:
            os.killpg(self.pid, signal.SIGKILL)
        texts = [path.read_text(errors="replace") for path in self.files]
        for path in self.files:
            path.unlink()
        return Ended(None if late else code, *texts, seconds, orphans)


def call(
    folder: Path,
    name: str,
    *arguments: object,
    kill_after: float | None = None,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Run `infdiff NAME ARGUMENTS` in a folder. kill_after: seconds until SIGKILL."""
    running = Running(folder, name, *arguments, before=before)
    if kill_after is not None and running.runs(kill_after):
        running.send(signal.SIGKILL)
    return running.end()


def _child(
    folder: Path, name: str, arguments: list[str], output: Path, errors: Path, before: Callable[[], None]
) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        before()
        start(name, arguments, f"infdiff {name}")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _alone(group: int) -> bool:
    """Return True once no process of a group is left."""
    end = time.perf_counter() + _ORPHANS
    while time.perf_counter() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False

"""Run parts one after the other: output and outcome are kept, and no failure stops the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from infdiff.files import make_folder, save_json, writing
from infdiff.gpu_check.parts import Part

DONE, FAILED, TIMED_OUT, MISSING = "done", "failed", "out of time", "not here"
# Seconds to save and leave after a request to stop.
_GRACE = 30
_STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Outcome:
    """The end of a part: one of the four states above; seconds; exit code, None where it did not run or end."""

    state: str
    seconds: float = 0.0
    exit_code: int | None = None
    why: str = ""

    def breaks_a_law(self, part: Part) -> bool:
        """Return True for a crash, and for a part that is a law and did not end well; never for a slow number."""
        return self.state == FAILED or (part.law and self.state == TIMED_OUT)


def outcome_of(part: Part, folder: Path) -> Outcome | None:
    """Return the outcome that is kept in the folder; None for a part that has not run, or whose file is damaged."""
    try:
        kept = json.loads(_kept(part, folder).read_text())
        return Outcome(**{name: kept[name] for name in Outcome.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_parts(
    parts: Sequence[Part], folder: Path, *, again: bool = False, say: Callable[[str], None] = lambda line: None
) -> None:
    """Run the parts that are not done yet, or all of them `again`. say: receives a line before and after each."""
    make_folder(folder)
    for number, part in enumerate(parts, 1):
        before = outcome_of(part, folder)
        if before is not None and before.state == DONE and not again:
            say(f"{number}/{len(parts)} {part.name}: done before")
            continue
        say(f"{number}/{len(parts)} {part.name}: {part.about}, {part.limit} s at most")
        outcome = _run(part, folder)
        save_json(_kept(part, folder), asdict(outcome) | {"command": list(part.command)})
        say(f"    {outcome.state}{f': {outcome.why}' if outcome.why else ''} after {outcome.seconds:.0f} s")


def _kept(part: Part, folder: Path) -> Path:
    return folder / f"{part.name}.outcome.json"


def _run(part: Part, folder: Path) -> Outcome:
    if part.missing:
        return Outcome(MISSING, why=part.missing)
    # Nothing of an earlier attempt is taken for this one's.
    (folder / f"{part.name}.json").unlink(missing_ok=True)
    if part.stops:
        shutil.rmtree(folder / "run", ignore_errors=True)
    output, start = folder / f"{part.name}.txt", time.monotonic()
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with writing(output), output.open("w") as file:
        try:
            process = subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": paths},
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(FAILED, why=f"{part.command[0]} does not start: {error.strerror}")
        code = _wait(process, part.limit)
    seconds = time.monotonic() - start
    if code is None:
        stopped = _stop(process)
        if part.stops and stopped == _STOPPED:
            return Outcome(DONE, seconds, stopped)
        return Outcome(TIMED_OUT, seconds, None, f"stopped at its limit, see {output}")
    if code == 0:
        return Outcome(DONE, seconds, code)
    return Outcome(FAILED, seconds, code, _last_line(output))


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Return the exit code; None after `limit` seconds. On any interruption the process ends, too."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    except BaseException:
        _kill(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> int | None:
    """Ask a process to stop, and end all that it started. Return its exit code; None if it did not stop by itself."""
    process.terminate()
    try:
        return process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"

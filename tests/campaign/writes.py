"""A disk that fills, breaks or is read-only from a random write on: one line, and the same command again ends well.

A library that is loaded before all others makes the calls of the C library fail (`failing_writes.c`).
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import random
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, WRITERS, Scene

COUNT, QUICK = 50, 5
_HERE = Path(__file__).parent
# The error, and whether all later writes fail, too.
_FAULTS = {"ENOSPC": (errno.ENOSPC, True), "EIO": (errno.EIO, False), "EROFS": (errno.EROFS, True)}


def preload(folder: Path) -> None:
    """Compile the library and start this program once more with it, unless it is there."""
    if hasattr(ctypes.CDLL(None), "arm_failing_writes"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "failing_writes.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _HERE / "failing_writes.c", "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.campaign", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {"LD_PRELOAD": str(library)})


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Let one write of a command fail, then call it again."""
    name, (fault, (code, forever)) = WRITERS[number % len(WRITERS)], draw.choice([*_FAULTS.items()])
    deed, moment = DEEDS[name], draw.randint(1, writes_of(scene, name))
    place = scene.place("writes", deed.needs)
    attack = f"{fault}: {name} at write {moment}"
    failed = deed.run(place, before=partial(_arm, place, moment, code, forever))
    if problem := failed.wrong():
        return Result(attack, "bad", False, detail=problem)
    said = "one line" if failed.code == 2 else "done without it"
    again = deed.run(place)
    if problem := again.wrong(allowed=(0,)):
        return Result(attack, "does not go on", False, detail=problem)
    if differing := scene.differences(name, place):
        return Result(attack, "other files", False, detail=str(differing))
    return Result(attack, f"{said}, then same bytes")


@cache
def writes_of(scene: Scene, name: str) -> int:
    """Number of changes of files that a command makes."""
    deed = DEEDS[name]
    place = scene.place("counted", deed.needs)
    ended = deed.run(place, before=partial(_arm, place, 0, 0, False, place / "count"))
    assert ended.code == 0, ended
    return int((place / "count").read_text())


def _arm(place: Path, moment: int, code: int, forever: bool, count: Path | None = None) -> None:
    library = ctypes.CDLL(None)
    library.count_writes.restype = ctypes.c_long
    if count is not None:
        atexit.register(lambda: count.write_text(str(library.count_writes())))
    library.arm_failing_writes(os.fsencode(place), ctypes.c_long(moment), code, forever)

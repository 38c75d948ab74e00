"""A long training: memory, open files, threads, files of the run and the time of a step stay as they are."""

from __future__ import annotations

import json
import os
import random
import statistics
from pathlib import Path

from tests.campaign.forked import Running
from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, Scene

COUNT, QUICK = 1, 1
STEPS = 20_000
_MEASURED_EVERY = 2.0  # seconds
_DEED = DEEDS["train"]
# Largest growth of a measure, as a part of it; none of the others. Previews are kept, one after the other.
_GROWTH = {"MiB": 0.05, "files": 1.0}
_SLOWER = 0.3
_PAGE = os.sysconf("SC_PAGE_SIZE")


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Train for STEPS steps, and compare the last quarter of the time with the second one."""
    place = scene.place("soak", _DEED.needs)
    every = max(STEPS // 100, 1)
    settings = (f"train.checkpoint_every={every}", f"train.log_every={every}", f"train.sample_every={10 * every}")
    running = Running(place, "train", *_DEED.arguments, "--steps", STEPS, *settings)
    measured: list[dict[str, float]] = []
    while running.runs(_MEASURED_EVERY):
        measured.append(_measure(running.pid, place))
    ended = running.end()
    attack = f"{STEPS} steps: {len(measured)} measurements"
    if ended.code != 0:
        return Result(attack, "bad", False, 0, ended.last_line)
    records = [json.loads(line) for line in (place / "r" / "log.jsonl").read_text().splitlines()]
    paces = [record["images_per_second"] for record in records if "images_per_second" in record]
    series = {key: [one[key] for one in measured] for key in measured[0]} | {"images/s": paces}
    notes, good = [], True
    for key, values in series.items():
        quarter = max(len(values) // 4, 1)
        before, after = (statistics.median(part) for part in (values[quarter : 2 * quarter], values[-quarter:]))
        notes.append(f"{key} {before:.5g} to {after:.5g}")
        change = (after - before) / before if before else after
        good &= -change <= _SLOWER if key == "images/s" else change <= _GROWTH.get(key, 0.0)
    return Result(f"{attack}: {'; '.join(notes)}", "flat" if good else "not flat", good, 0)


def _measure(process: int, place: Path) -> dict[str, float]:
    proc = Path("/proc") / str(process)
    try:
        resident = int((proc / "statm").read_text().split()[1]) * _PAGE / 2**20
        return {
            "MiB": resident,
            "descriptors": len(os.listdir(proc / "fd")),
            "threads": len(os.listdir(proc / "task")),
            "files": sum(1 for _ in place.rglob("*")),
        }
    except (OSError, IndexError):
        return {"MiB": 0, "descriptors": 0, "threads": 0, "files": 0}

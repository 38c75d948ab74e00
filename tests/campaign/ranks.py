"""Two processes that train together, of which one dies at a random moment: both again end with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import socket
from functools import partial
from pathlib import Path

from tests.campaign.forked import Ended, Running
from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, Scene, content

COUNT, QUICK = 20, 2
_DEED = DEEDS["train"]
# torchrun ends the others soon after one process has died.
_GRACE = 10.0
_WHOLE: dict[str, str] = {}


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Kill one of two processes; stop the other one, if need be, as torchrun does; start both again."""
    if not _WHOLE:
        place = scene.place("together", _DEED.needs)
        ended = [running.end() for running in start(place, 2)]
        assert [one.code for one in ended] == [0, 0], ended
        _WHOLE.update(content(place))
    place, doomed = scene.place("ranks", _DEED.needs), draw.randrange(2)
    moment = draw.uniform(0, 1.5 * scene.seconds["train"])
    attack = f"train: process {doomed} killed after {moment:.3f} s"
    started = start(place, 2)
    started[doomed].runs(moment)
    started[doomed].send(signal.SIGKILL)
    other = started[1 - doomed]
    stopped = other.runs(_GRACE)
    if stopped:
        other.send(signal.SIGTERM)
    ends = [running.end() for running in started]
    if problem := ends[1 - doomed].wrong(allowed=(0, 2, 143)):
        return Result(attack, "bad", False, detail=problem)
    again: list[Ended] = [running.end() for running in start(place, 2)]
    if [one.code for one in again] != [0, 0]:
        return Result(attack, "does not go on", False, detail=again[0].stderr + again[1].stderr)
    found = content(place)
    differing = sorted(name for name in {*found, *_WHOLE} if found.get(name) != _WHOLE.get(name))
    if differing:
        return Result(attack, "other files", False, detail=str(differing))
    return Result(attack, f"{'the other one stopped from outside' if stopped else 'the other one ended'}, same bytes")


def start(place: Path, count: int) -> list[Running]:
    """Processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        Running(
            place,
            _DEED.name,
            *_DEED.arguments,
            before=partial(os.environ.update, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}),
            mark=f"rank{rank}",
        )
        for rank in range(count)
    ]

"""SIGKILL at random moments: the same command again ends with the same files as an undisturbed one."""

from __future__ import annotations

import random

from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, WRITERS, Scene

COUNT, QUICK = 100, 5
_MOST = 4  # kills of one run


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Kill one command up to four times, then let it finish."""
    name = WRITERS[number % len(WRITERS)]
    deed = DEEDS[name]
    place, moments = scene.place("kills", deed.needs), []
    for _ in range(draw.randint(1, _MOST)):
        moment = draw.uniform(0, scene.seconds[name])
        ended = deed.run(place, kill_after=moment)
        if problem := ended.wrong(allowed=(0, -9)):
            return Result(name, "bad", False, len(moments) + 1, f"killed after {moments} and {moment}: {problem}")
        if ended.code == 0:
            break
        moments.append(round(moment, 3))
    last = deed.run(place)
    if problem := last.wrong(allowed=(0,)):
        return Result(name, "does not go on", False, len(moments), f"killed after {moments}: {problem}")
    if differing := scene.differences(name, place):
        return Result(name, "other files", False, len(moments), f"killed after {moments}: {differing}")
    return Result(name, "same bytes", faults=len(moments))

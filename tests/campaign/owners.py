"""Two trainings of one folder: the second one is refused in one line, and the first one ends as if it was alone."""

from __future__ import annotations

import random
import signal

from tests.campaign.forked import Running
from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, Scene

COUNT, QUICK = 20, 2


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Start a second owner at a random moment; in every third attack the first one is killed, and it tries again."""
    name = ("train", "train-latent")[number % 2]
    deed, killed = DEEDS[name], number % 3 == 2
    place = scene.place("owners", deed.needs)
    first = Running(place, deed.name, *deed.arguments, mark="first")
    first.runs(draw.uniform(0, scene.seconds[name]))
    second = Running(place, deed.name, *deed.arguments, mark="second").end()
    if killed:
        first.send(signal.SIGKILL)
    ended = first.end()
    attack = f"{name}: {'the first one killed' if killed else 'both left alone'}"
    if problem := second.wrong() or ended.wrong(allowed=(0, -9) if killed else (0, 2)):
        return Result(attack, "bad", False, detail=problem)
    if ended.code == 2 and second.code == 2:
        return Result(attack, "both refused", False, detail=ended.stderr + second.stderr)
    for refused in (ended, second):
        if refused.code == 2 and not (refused.one_line and "is training there" in refused.stderr):
            return Result(attack, "unclear", False, detail=refused.stderr)
    if (again := deed.run(place)).code != 0:
        return Result(attack, "does not go on", False, detail=again.stderr)
    if differing := scene.differences(name, place):
        return Result(attack, "other files", False, detail=str(differing))
    waited = "one refused" if 2 in (ended.code, second.code) else "one after the other"
    return Result(attack, f"{waited}, same bytes")

"""Flipped bits and cut files: the same result, one line, or another way that is said; never silently other images."""

from __future__ import annotations

import random
from pathlib import Path

from tests.campaign.result import Result
from tests.campaign.scene import DEEDS, READERS, Scene

COUNT, QUICK = 200, 8
_CUT = 0.3  # part of the attacks that cut a file off
_SAID = ("warning:", "note:", "damaged", "fitted again")


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Damage one file of a run or of its data set, and use it."""
    name = READERS[number % len(READERS)]
    deed = DEEDS[name]
    place = scene.place("damage", deed.needs)
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    # Each kind of file as often as the others, however many there are of it.
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(path.name if not path.name[0].isdigit() else path.suffix, []).append(path)
    file = draw.choice(kinds[draw.choice([*kinds])])
    how = harm(file, draw)
    attack = f"{name}: {file.relative_to(place)} {how}"
    ended = deed.run(place)
    if problem := ended.wrong():
        return Result(attack, "bad", False, detail=problem)
    if ended.code == 2:
        good = ended.stderr.count("error") >= 1 and len(ended.stderr.splitlines()) <= 3
        return Result(attack, "one line", good, detail="" if good else ended.stderr)
    differing = scene.differences(name, place, outputs=True)
    if not differing:
        return Result(attack, "same result")
    said = any(word in ended.stderr + ended.stdout for word in _SAID)
    if said:
        return Result(attack, "another way, which is said", detail=ended.last_line)
    return Result(attack, "silently other", False, detail=str(differing))


def harm(file: Path, draw: random.Random) -> str:
    """Flip a bit of a file, or cut it off, and say which."""
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    if draw.random() < _CUT:
        file.write_bytes(content[:place])
        return f"cut to {place} of {len(content)} bytes"
    bit = draw.randrange(8)
    content[place] ^= 1 << bit
    file.write_bytes(content)
    return f"bit {bit} of byte {place} of {len(content)}"

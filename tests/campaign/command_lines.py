"""Bad command lines, made from the tables of options and settings: one line, exit code 2, and nothing is written."""

from __future__ import annotations

import argparse
import importlib
import random
from collections.abc import Callable
from typing import Any, get_args

from annotated_types import Ge, Gt

from infdiff.config.keys import KEYS
from tests.campaign.forked import call
from tests.campaign.result import Result
from tests.campaign.scene import Scene, content
from tests.conftest import TINY

COUNT, QUICK = 150, 15
_BASES: dict[str, tuple[object, ...]] = {
    "train": ("--data", "d.lmdb", "--out", "new", "--steps", 2, *TINY),
    "train_latent": ("--run", "r"),
    "sample": ("--run", "r", "--res", 16, "--out", "new"),
    "superres": ("--run", "r", "--input", "../../photos/00.png", "--res", 64, "--out", "new.png"),
    "inpaint": ("--run", "r", "--input", "../../photos/00.png", "--mask", "../../photos/01.png", "--out", "new.png"),
    "evaluate": ("--run", "r", "--res", 16, "--n", 4, "--metrics", "spectrum"),
    "prepare_data": ("../../photos", "--out", "new.lmdb", "--size", 16),
}
# Options of which any text is good: names of files and folders to write.
_FREE = ("out", "json", "report", "help", "source", "overrides", "force", "dry_run", "lpips")
# Numbers of which none is too large.
_UNLIMITED = ("max_pixels",)
# Options that name what has to be there.
_FILES = ("run", "data", "input", "mask", "config", "finetune", "images", "held_out", "interpolate")


def trial(scene: Scene, number: int, draw: random.Random) -> Result:
    """Call a command with one thing wrong."""
    place = scene.place("command-lines", ("d.lmdb", "run"))
    before = content(place)
    command = draw.choice([*_BASES])
    kind, wrong = draw.choice(_WRONG)(command, draw)
    given = " ".join(map(str, wrong))
    attack = f"{kind}: {command} {given}"
    ended = call(place, command.replace("_", "-"), *_BASES[command], *wrong)
    if not ended.one_line:
        outcome = "accepted" if ended.code == 0 else "not one line"
        return Result(attack, outcome, False, detail=f"exit code {ended.code}: {ended.stderr[-500:]}")
    if content(place) != before:
        left = sorted({*content(place)} - {*before})
        return Result(attack, "files left", False, detail=f"{left}: {ended.stderr}")
    return Result(attack, "one line")


def _options(command: str) -> list[argparse.Action]:
    parser = importlib.import_module(f"infdiff.commands.{command}").make_parser(None)
    return [action for action in parser._actions if action.option_strings and action.dest not in _FREE]


Wrong = tuple[str, tuple[object, ...]]


def _value(command: str, draw: random.Random) -> Wrong:
    action = draw.choice(_options(command))
    option = action.option_strings[-1]
    if action.dest in _FILES:
        values = [draw.choice(["missing/file", "/dev/null", "r/config.yaml", "../../photos/00.png.x"])]
        if action.dest in ("input", "mask", "interpolate"):
            values = [draw.choice(["missing.png", "r/config.yaml"])]
        values *= 2 if action.dest == "interpolate" else 1
        return "missing file", (option, *values)
    if action.type is int or action.dest == "seed":
        huge = [] if action.dest in _UNLIMITED else ["99999999999999999999999"]
        return "number", (option, draw.choice(["abc", "1.5", "", "-3", "1e3", *huge]))
    if action.type is float:
        return "number", (option, draw.choice(["abc", "nan", "", "-0.5", "-inf"]))
    return "choice", (option, draw.choice(["nonsense", "no,thing", "-", "ä€"]))


def _unknown(command: str, draw: random.Random) -> Wrong:
    return "unknown option", (draw.choice(["--nonsense", "--stepps=3", "-z", "--res16"]),)


def _no_value(command: str, draw: random.Random) -> Wrong:
    takes = [action for action in _options(command) if action.nargs != 0]
    return "no value", (draw.choice(takes).option_strings[-1],)


def _setting(command: str, draw: random.Random) -> Wrong:
    latent = command == "train_latent"
    names = [name for name in KEYS if name.startswith("latent.") == latent]
    if command not in ("train", "train_latent"):
        return _value(command, draw)
    name = draw.choice(names)
    kind = draw.choice(["type", "range", "key", "form"])
    if kind == "key":
        return "unknown setting", (f"{name}x=1",)
    if kind == "form":
        return "no setting", (draw.choice([name, f"{name}:3", f"={name}", f"{name}=[1,"]),)
    low = [limit for key in KEYS[name] for limit in _limits(key.field)]
    if kind == "range" and low:
        return "setting out of range", (f"{name}={min(low) - 1:g}",)
    return "type of a setting", (f"{name}=[{{no: such}}, null]",)


def _limits(field: Any) -> list[float]:
    found = [*field.metadata, *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ()))]
    return [limit.ge if isinstance(limit, Ge) else limit.gt for limit in found if isinstance(limit, Ge | Gt)]


_WRONG: list[Callable[[str, random.Random], Wrong]] = [_value, _value, _value, _setting, _setting, _unknown, _no_value]

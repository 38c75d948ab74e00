"""The tiny world that is attacked: photos, a data set, a trained run; and commands with what they should make."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from tests.campaign.forked import Ended, call
from tests.conftest import TINY

# Files whose bytes tell how long something took: that they are there is compared, and no more.
_TIMED = ("cost-",)
# The last preview of a run has as many columns as there was time for, or none.
_NOT_COMPARED = ("owner.lock", "samples-*.png", "reconstructions-*.png")
_TIMES = ("images_per_second", "seconds", "peak_mb")

LATENT = ("--steps", 20, "latent.width=32", "latent.layers=2", "latent.train.checkpoint_every=5")
QUIET = ("latent.train.log_every=3", "latent.train.batch_size=4", "latent.diffusion_steps=100")


@dataclass(frozen=True)
class Deed:
    """A command, in a folder that holds copies of what it needs of the scene: a run is `r`, a data set `d.lmdb`.

    outputs: patterns of the files that it is called for.
    """

    name: str
    arguments: tuple[object, ...]
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def run(self, folder: Path, **options: object) -> Ended:
        return call(folder, self.name, *self.arguments, **options)  # type: ignore[arg-type]


_TRAIN = ("--data", "d.lmdb", "--out", "r", *TINY, "train.optimiser=muon")
DEEDS = {
    "prepare-data": Deed(
        "prepare-data", ("../../photos", "--out", "d.lmdb", "--size", 16, "--crops", 3, "--workers", 1)
    ),
    "train": Deed("train", (*_TRAIN, "--steps", 14), ("d.lmdb",)),
    "train-latent": Deed("train-latent", ("--run", "r", *LATENT, *QUIET), ("d.lmdb", "trained")),
    "evaluate": Deed(
        "evaluate",
        ("--run", "r", "--res", 16, "--n", 8, "--batch", 2, "--metrics", "spectrum", "--json", "e.json"),
        ("d.lmdb", "run"),
        ("e.json", "r/evaluation/*/*.png"),
    ),
    "sample": Deed("sample", ("--run", "r", "--res", 16, "--n", 8, "--batch", 2, "--out", "s"), ("run",), ("s/*",)),
    # What reads a finished run once more.
    "train on": Deed("train", (*_TRAIN, "--steps", 20), ("d.lmdb", "run"), ("r/checkpoints/00000020/*",)),
    "train-latent on": Deed(
        "train-latent",
        ("--run", "r", *LATENT, *QUIET, "--steps", 30),
        ("d.lmdb", "run"),
        ("r/latents/00000014/checkpoints/00000030/*",),
    ),
}
# What is killed, and whose writes fail.
WRITERS = ("prepare-data", "train", "train-latent", "evaluate", "sample")
READERS = ("sample", "evaluate", "train on", "train-latent on")


class Scene:
    """Built once in a folder, and kept there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "scene.json").exists():
            self._build()
        kept = json.loads((folder / "scene.json").read_text())
        self.expected: dict[str, dict[str, str]] = kept["expected"]
        self.seconds: dict[str, float] = kept["seconds"]

    def place(self, trial: str, needs: tuple[str, ...] = ()) -> Path:
        """A fresh folder of a trial, with copies of what it needs."""
        place = self.folder / "trials" / trial
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in needs:
            if name == "d.lmdb":
                shutil.copy(self.folder / name, place / name)
            else:
                shutil.copytree(self.folder / name, place / "r")
        return place

    def differences(self, deed: str, place: Path, *, outputs: bool = False) -> list[str]:
        """Names of files that are not as an undisturbed call leaves them. outputs: of those that it is called for."""
        found, expected = content(place), self.expected[deed]
        names = {*found, *expected}
        if outputs:
            names = {name for name in names if any(PurePath(name).match(p) for p in DEEDS[deed].outputs)}
        return sorted(name for name in names if found.get(name) != expected.get(name))

    def _build(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        photos = self.folder / "photos"
        photos.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(24):
            small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            small.resize((40, 32), Image.Resampling.BICUBIC).save(photos / f"{number:02}.png")
        expected, seconds = {}, {}
        for name, deed in DEEDS.items():
            place = self.place("expected", deed.needs)
            ended = deed.run(place)
            assert ended.code == 0, (name, ended)
            expected[name], seconds[name] = content(place), ended.seconds
            if name == "prepare-data":
                shutil.copy(place / "d.lmdb", self.folder / "d.lmdb")
            elif name in ("train", "train-latent"):
                shutil.copytree(place / "r", self.folder / {"train": "trained", "train-latent": "run"}[name])
        (self.folder / "scene.json").write_text(json.dumps({"expected": expected, "seconds": seconds}, indent=1))


def content(folder: Path) -> dict[str, str]:
    """Return a hash of each file below a folder, by its name from there; without what tells the time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not any(map(path.match, _NOT_COMPARED)))
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _hash(path: Path) -> str:
    if path.name.startswith(_TIMED):
        return "there"
    if path.suffix in (".json", ".jsonl") and path.name != "state.json":
        with suppress(ValueError):  # a damaged one
            records = [json.loads(text) for text in _texts(path)]
            return json.dumps(_without_times(records), sort_keys=True)
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _texts(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if not any(t in key for t in _TIMES)}
    if isinstance(value, list):
        return [_without_times(entry) for entry in value]
    return value

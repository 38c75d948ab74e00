"""The interface of a tracker, and what it is opened with."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from infdiff.errors import UserError
from infdiff.files import save_json

# The project that runs are filed under, where a tracker has projects.
PROJECT = "infdiff"


class Tracker(Protocol):
    """Gets what a run logs. Steps never fall, but for those that a killed run logged and that are logged again."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a row of the log by name, such as "loss" or "losses/32x32"."""

    def image(self, step: int, name: str, path: Path) -> None:
        """Take a PNG file."""

    def close(self) -> None:
        """Wait until everything is stored or sent."""


@dataclass(frozen=True)
class Start:
    """The place where a training starts, or goes on.

    step: of the checkpoint; 0 for none. logged: the last step in log.jsonl then, which is later where a run was killed.
    """

    folder: Path
    step: int
    logged: int

    @property
    def name(self) -> str:
        """The name of the run; that of a latent model also has the run and the step that it belongs to."""
        parts = self.folder.resolve().parts
        return "-".join(parts[-3:]) if parts[-2:-1] == ("latents",) else parts[-1]

    def settings(self) -> dict[str, Any]:
        """The run's settings, none where its folder holds none."""
        path = self.folder / "config.yaml"
        return dict(yaml.safe_load(path.read_text())) if path.is_file() else {}

    def identity(self, tracker: str) -> tuple[str, int]:
        """Return the name by which a tracker knows this run, always the same, and the last step that it has of it.

        Raises UserError when the file that keeps it is damaged.
        """
        path = self.folder / "trackers.json"
        try:
            known = dict(json.loads(path.read_text())) if path.is_file() else {}
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it, and trackers begin a new curve") from error
        if tracker in known:
            return str(known[tracker]), self.logged
        known[tracker] = secrets.token_hex(4)
        save_json(path, known)
        return str(known[tracker]), 0

"""Trackio: a database on this machine, or a Space where its environment variables name one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trackio

from infdiff.trackers.tracker import PROJECT, Start


class Trackio:
    """One run of Trackio, continued by its name. What a killed run logged after the checkpoint is not logged again."""

    def __init__(self, start: Start) -> None:
        name, self.sent = start.identity("trackio")
        self.run = trackio.init(
            project=PROJECT,
            name=f"{start.name}-{name}",
            resume="allow",
            config=start.settings(),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step > self.sent:
            self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        if step > self.sent:
            self.run.log({name: trackio.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()

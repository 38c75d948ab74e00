"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import wandb

from infdiff.trackers.tracker import PROJECT, Start


class WandB:
    """One run of W&B, continued by its id. Its step is the training step.

    W&B takes no step twice: what a killed run sent after the checkpoint stays, and is not sent again.
    """

    def __init__(self, start: Start) -> None:
        name, self.sent = start.identity("wandb")
        self.run = wandb.init(
            project=PROJECT,
            id=name,
            name=start.name,
            resume="allow",
            dir=start.folder,
            config=start.settings(),
            settings=wandb.Settings(console="off"),  # the progress bar is none of its business
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step > self.sent:
            self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        if step > self.sent:
            self.run.log({name: wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()

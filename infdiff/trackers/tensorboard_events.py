"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from infdiff.trackers.tracker import Start


class TensorBoard:
    """Writes RUN/tensorboard. Readers forget what a killed run logged after the checkpoint (`purge_step`)."""

    def __init__(self, start: Start) -> None:
        self.writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        # Otherwise a kill would lose up to two minutes, some of them from before the checkpoint.
        self.writer.flush()

    def image(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

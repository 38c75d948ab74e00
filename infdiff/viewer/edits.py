"""Jobs of the page for enlarging and filling: variants of a picture, one after another."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.cli import explain
from infdiff.coordinates import Size, format_size
from infdiff.errors import UserError, first_line
from infdiff.methods.sampling import check_enlarging
from infdiff.pipelines.super_resolve import small_size
from infdiff.runs.editing import enlarge, enlarging_method, enlarging_options, fill, filling_method, filling_options
from infdiff.runs.trained import TrainedModel
from infdiff.viewer.worker import AbandonedError, Check, Worker

MOST_VARIANTS = 16
# Of a picture that comes in, and of one that goes out.
MOST_PIXELS = 1 << 24


@dataclass
class Job:
    """Variants of a picture (1, 3, H, W) uint8: filled where a mask (H, W) is true, then enlarged to a size.

    Raises UserError for what cannot be done. made: the variants so far, each (3, H, W) uint8.
    """

    trained: TrainedModel
    picture: Tensor
    hidden: Tensor | None
    size: Size
    count: int
    seed: int
    made: list[Tensor] = field(default_factory=list)
    steps_done: int = 0
    error: str | None = None
    cancelled: bool = False
    running: bool = True

    @classmethod
    def of(cls, trained: TrainedModel, picture: Tensor, hidden: Tensor | None, res: str, count: int, seed: int) -> Job:
        """Check a job. res: as `check_enlarging`; empty for the picture's own size."""
        given = small_size(picture)
        size = check_enlarging(given, res) if res else given
        if size[0] * size[1] > MOST_PIXELS:
            raise UserError(f"size {format_size(size)}: at most {MOST_PIXELS / 1e6:.0f} megapixels are made here")
        if hidden is None and size == given:
            raise UserError("nothing to do: draw on the picture what is to be filled, or choose a larger size")
        if size != given:
            trained.require_encoder()
        return cls(trained, picture, hidden, size, count, seed)

    @property
    def steps(self) -> int:
        """Evaluations of the network for all variants, at most."""
        return self.count * (self._filling_steps + self._enlarging_steps)

    @property
    def _filling_steps(self) -> int:
        if self.hidden is None:
            return 0
        given = small_size(self.picture)
        parts = 2 if filling_method(self.trained, given) == "windows" else 1
        return parts * filling_options(self.trained, given).steps

    @property
    def _enlarging_steps(self) -> int:
        return 0 if self.size == small_size(self.picture) else self.trained.config.sample.steps

    def start(self, worker: Worker) -> None:
        """Begin in the background."""
        threading.Thread(target=self._follow, args=(worker,), daemon=True).start()

    def state(self) -> dict[str, Any]:
        """The state that the page shows."""
        done = 1.0 if not self.running else min(self.steps_done / max(self.steps, 1), 0.999)
        return {
            "done": done,
            "made": len(self.made),
            "count": self.count,
            "running": self.running,
            "cancelled": self.cancelled,
            "error": self.error,
            "size": self.size,
        }

    def _follow(self, worker: Worker) -> None:
        try:
            for number in range(self.count):
                self.made.append(worker.do(partial(self._variant, number), lambda: not self.cancelled))
        except AbandonedError:
            pass
        except Exception as error:
            self.error = explain(error) or f"an error inside the server: {first_line(error)}"
        self.running = False

    def _variant(self, number: int, check: Check) -> Tensor:
        def step() -> None:
            self.steps_done += 1
            check()

        image = self.picture
        if self.hidden is not None:
            options = filling_options(self.trained, small_size(image))
            image = fill(self.trained, image, self.hidden, [number], options=options, seed=self.seed, on_step=step)
        if self.size != small_size(image):
            method = enlarging_method(self.trained, self.size)
            # By gradients a large image would not fit; the default is projection, in tiles where it is large.
            enlarging = enlarging_options(self.trained, self.size)
            image = enlarge(
                self.trained,
                image,
                self.size,
                options=enlarging,
                method=method,
                seed=self.seed,
                indices=[number],
                on_step=step,
            )
        return image[0]


def bicubic(picture: Tensor, size: Size) -> Tensor:
    """A picture (1, 3, h, w) uint8 at another size, (3, H, W): what results are compared with."""
    image = Image.fromarray(picture[0].permute(1, 2, 0).numpy())
    resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

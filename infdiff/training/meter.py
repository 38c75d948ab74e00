"""Progress reports of training: mean losses since the last report, and the pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from infdiff.training.log import Log


class Meter:
    """Means of losses and gradient norms between two reports, and the pace.

    clock: seconds, as `time.perf_counter`. say: prints a line where there is no progress bar.
    """

    def __init__(
        self,
        log: Log,
        step: int,
        clock: Callable[[], float] = time.perf_counter,
        say: Callable[[str], object] = tqdm.write,
    ) -> None:
        self.log, self.clock, self.say = log, clock, say
        self.losses: list[tuple[str, float]] = []
        self.norms: list[float] = []
        self.restart(step, 0)

    def restart(self, step: int, seen: int) -> None:
        """Exclude the time since the last report from the pace."""
        self.started, self.last_step, self.last_seen = self.clock(), step, seen

    def add(self, label: str, loss: float, norm: float) -> None:
        self.losses.append((label, loss))
        self.norms.append(norm)

    def report(self, step: int, seen: int, rate: float, skipped: int, bar: tqdm[Any], steps: int) -> None:
        """Log the means, show them next to the progress bar, and start over.

        seen: training images so far. rate: the learning rate. Without a progress bar, a line is printed.
        """
        passed = self.clock() - self.started
        pace = max(step - self.last_step, 1) / passed
        images_per_second = round((seen - self.last_seen) / passed, 2)
        loss = _mean([loss for _, loss in self.losses])
        labels = sorted({label for label, _ in self.losses})
        by_label = {label: _mean([loss for other, loss in self.losses if other == label]) for label in labels}
        self.log.write(
            {"step": step, "loss": loss}
            | labelled("losses", by_label)
            | {
                "gradient_norm": _mean(self.norms),
                "learning_rate": rate,
                "skipped": skipped,
                "images_per_second": images_per_second,
            }
        )
        shown = "not finite" if loss is None else f"{loss:.4f}"
        bar.set_postfix_str(f"loss {shown}, {images_per_second} images/s")
        if bar.disable:
            left = int((steps - step) / pace)
            where = f"step {step}/{steps}  loss {shown}  {images_per_second} images/s"
            self.say(f"{where}  {left // 60}:{left % 60:02d} left")
        self.restart(step, seen)
        self.losses, self.norms = [], []


def labelled(key: str, by_label: Mapping[str, float | None]) -> dict[str, Any]:
    """Return an entry for the log: losses by label, or nothing if batches have no label."""
    return {} if set(by_label) <= {""} else {key: dict(by_label)}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

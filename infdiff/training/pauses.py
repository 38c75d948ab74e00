"""Everything that a run does between training steps: shown while it lasts, and its time counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from tqdm import tqdm

from infdiff import processes

# Part of the time that pauses may take.
_SHARE = 0.1
# Seconds that the last preview may take in any case: a short run should leave something to see.
_LAST = 10.0
# Seconds between two printed lines about the same pause.
_QUIET = 10.0

# Called with the parts done and their number, first with none done.
OnProgress = Callable[[int, int], object]


class Preview(Protocol):
    """Saves example images of a step, usually `most` of each kind."""

    most: int

    def __call__(self, step: int, modules: Mapping[str, nn.Module], count: int, on_progress: OnProgress) -> None: ...

    def worth(self, count: int) -> float:
        """Estimate the number of training steps that last as long."""

    def pictures(self, step: int) -> Sequence[Path]:
        """Return the files of a step, none unless all of them are there."""


class Pauses:
    """Time of training steps, and of pauses between them. clock: seconds, as `time.perf_counter`; say: prints a line.

    Pauses are shown next to the progress bar; without one, lines are printed. Nothing here reaches the weights.
    """

    def __init__(
        self,
        bar: tqdm[Any],
        step: int,
        steps: int,
        clock: Callable[[], float] = time.perf_counter,
        say: Callable[[str], object] = tqdm.write,
    ) -> None:
        self.bar, self.first, self.steps, self.clock, self._write = bar, step, steps, clock, say
        self.started = clock()
        self.spent = 0.0
        self._slower = 1.0  # seconds of the last preview over their estimate

    @contextmanager
    def show(self, step: int, doing: str, parts: str = "") -> Iterator[OnProgress]:
        """Count the time of the block, and show "DOING 3/8 PARTS" as it calls on_progress(3, 8)."""
        started, printed = self.clock(), -math.inf

        def on_progress(done: int, total: int) -> None:
            nonlocal printed
            text = f"{doing} {done}/{total} {parts}".rstrip()
            self.bar.set_description_str(text)
            if self.bar.disable and self.clock() - printed >= _QUIET:
                printed = self.clock()
                self._say(step, text)

        self.bar.set_description_str(doing)
        try:
            yield on_progress
        finally:
            self.spent += self.clock() - started
            self.bar.set_description_str("")

    def preview(
        self,
        step: int,
        preview: Preview,
        modules: Mapping[str, nn.Module],
        *,
        waiting: bool,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Draw a preview, or return False if it has to wait for time. waiting: it was said already.

        After the last step it has as many images as there is time for, and at least one of each kind if that takes
        seconds. before: called first, if it is drawn. Several processes draw what the first one has time for.
        """
        last = step == self.steps
        count, needed = processes.of_the_first(self._affordable(step, preview, waiting=waiting))
        if not count:
            return last
        before()
        started = self.clock()
        with self.show(step, "preview:", "network evaluations") as on_progress:
            preview(step, modules, count, on_progress)
        if needed > 0:
            self._slower *= (self.clock() - started) / needed
        return True

    def _affordable(self, step: int, preview: Preview, *, waiting: bool) -> tuple[int, float]:
        """The number of images that there is time for now, and the seconds that they need."""
        count, last, left = preview.most, step == self.steps, self._left()
        needed = self._seconds(step, preview.worth(count))
        while last and count > 1 and needed > left:
            count //= 2
            needed = self._seconds(step, preview.worth(count))
        if needed > (max(left, _LAST) if last else left):
            if last or not waiting:
                what = "no preview" if last else "preview put off"
                self._say(step, f"{what}: {needed:.0f} s are more than a tenth of the time so far")
            return 0, needed
        return count, needed

    def _left(self) -> float:
        """Seconds that a pause may take now."""
        return _SHARE / (1 - _SHARE) * self._trained() - self.spent

    def _seconds(self, step: int, worth: float) -> float:
        return worth * self._slower * self._trained() / (step - self.first)

    def _trained(self) -> float:
        """Seconds of training so far."""
        return self.clock() - self.started - self.spent

    def _say(self, step: int, text: str) -> None:
        self._write(f"step {step}/{self.steps}  {text}")

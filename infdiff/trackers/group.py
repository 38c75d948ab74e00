"""The trackers that a run names: opened together, fed together, closed together."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infdiff.errors import UserError, first_line
from infdiff.trackers.tracker import Start, Tracker

# Each tracker, which is also the name of its package and of the extra that installs it: its module here, its class.
TRACKERS = {
    "tensorboard": ("tensorboard_events", "TensorBoard"),
    "wandb": ("wandb_run", "WandB"),
    "trackio": ("trackio_run", "Trackio"),
}
# The values of `train.log`.
LOGS = ("jsonl", *TRACKERS)


def require_trackers(names: Iterable[str], section: str) -> None:
    """Raise UserError naming the first tracker whose package is not installed. Imports nothing."""
    for name in names:
        if name in TRACKERS and _missing(name):
            raise UserError(f"{section}.log: {name} is not installed: pip install 'infdiff[{name}]'")


def _missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ValueError:  # its entry in sys.modules says that it is not to be imported
        return True


class Trackers:
    """Several trackers as one. One that fails while a run trains gets no more, a line says so, and training goes on."""

    def __init__(self, trackers: dict[str, Tracker], say: Callable[[str], object]) -> None:
        self._trackers, self._say = trackers, say

    def record(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a row of the log."""
        step = int(record["step"])
        values = dict(_numbers({name: value for name, value in record.items() if name != "step"}))
        self._each(lambda tracker: tracker.scalars(step, values))

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Send files named NAME-STEP.png."""
        for path in paths:
            name = path.stem.rsplit("-", 1)[0]
            self._each(lambda tracker, name=name, path=path: tracker.image(step, name, path))  # type: ignore[misc]

    def close(self) -> None:
        """Wait until each has stored everything."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._trackers[name]
                self._say(f"warning: {name} gets no more of this run's log: {first_line(error)}")


@contextmanager
def tracking(names: Iterable[str], start: Start, say: Callable[[str], object]) -> Iterator[Trackers]:
    """Yield the trackers of these names, and close them after the block, whatever happens in it.

    say: prints a line. Raises UserError when a tracker cannot be opened.
    """
    opened: dict[str, Tracker] = {}
    trackers = Trackers(opened, say)
    try:
        for name in names:
            if name in TRACKERS:
                opened[name] = _open(name, start)
        yield trackers
    finally:
        trackers.close()


def _open(name: str, start: Start) -> Tracker:
    module, kind = TRACKERS[name]
    try:
        tracker: Tracker = getattr(importlib.import_module(f"infdiff.trackers.{module}"), kind)(start)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} cannot be used: {first_line(error)}; or leave it out of train.log") from error
    return tracker


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a row, those of inner mappings as "losses/32x32"."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield prefix + name, value

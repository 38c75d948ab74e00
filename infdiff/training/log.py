"""The log of a run: one JSON object a line, a plot of it, and scalars copied from the device without waiting."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.files import save_text, whole_file, writing
from infdiff.trackers import Trackers, tracking
from infdiff.trackers.tracker import Start


class Log:
    """Appends records to log.jsonl. On resuming at a step, drops the records that a killed run wrote after it.

    writes: False in a process that another one writes for.
    """

    def __init__(self, path: Path, resume_step: int, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._start = Start(path.parent, resume_step, resume_step)
        self._trackers: Trackers | None = None
        if writes and path.exists():
            lines = [(int(json.loads(line)["step"]), line) for line in _complete_lines(path)]
            self._start = Start(path.parent, resume_step, max((step for step, _ in lines), default=0))
            save_text(path, "".join(line + "\n" for step, line in lines if step <= resume_step))

    @contextmanager
    def followed(self, names: Iterable[str], say: Callable[[str], object]) -> Iterator[None]:
        """Within the block, trackers of these names get the records, too. say: prints a line.

        Raises UserError when one cannot be opened.
        """
        with tracking(names if self.writes else (), self._start, say) as self._trackers:
            yield

    def write(self, record: dict[str, Any]) -> None:
        """Append a record."""
        if not self.writes:
            return
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._trackers is not None:
            self._trackers.record(record)

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Show trackers PNG files named NAME-STEP.png."""
        if self._trackers is not None:
            self._trackers.images(step, paths)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; none if there is no such file."""
    return [json.loads(line) for line in _complete_lines(path)] if path.exists() else []


def logged(records: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Return (step, value) of every record that has a value of that name."""
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]


def plot_losses(log: Path, out: Path) -> None:
    """Plot training and validation loss over steps, as a PNG."""
    from matplotlib.figure import Figure

    records = read_log(log)
    figure = Figure(figsize=(7, 4))
    # A layout that finds its margins draws everything twice.
    axes = figure.subplots(gridspec_kw={"left": 0.11, "right": 0.98, "bottom": 0.13, "top": 0.97})
    for key, label, style in (("loss", "training", "-"), ("validation_loss", "validation (EMA weights)", "o-")):
        if points := logged(records, key):
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    if axes.has_data():
        axes.legend()
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=120, format="png")


# (step, label, values)
Arrived = tuple[int, str, list[float]]


class DelayedScalars:
    """Asynchronous device-to-host copies of scalars. `push` never blocks; `ready` returns those that have arrived."""

    def __init__(self) -> None:
        self._pending: deque[tuple[int, str, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, values: Tensor, label: str = "") -> None:
        """Start copying the values (N,) of a step."""
        if values.device.type != "cuda":
            self._pending.append((step, label, values.detach().clone(), None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((step, label, host, event))

    def ready(self, until: int = 0) -> list[Arrived]:
        """Return the scalars that have arrived, in order of steps. Block for those of the steps up to `until`."""
        arrived = []
        while self._pending:
            step, label, values, event = self._pending[0]
            if event is not None:
                if step <= until:
                    event.synchronize()
                elif not event.query():
                    break
            self._pending.popleft()
            arrived.append((step, label, values.tolist()))
        return arrived


def _complete_lines(path: Path) -> list[str]:
    """Return the lines that hold a record: a kill may have cut off the last one, and a disk may damage any."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                lines.append(line)
    return lines

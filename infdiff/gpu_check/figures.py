"""Figures of a check on a GPU, each with an estimate that was made without one, and the target."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infdiff.gpu_check.parts import Part
from infdiff.gpu_check.run import outcome_of
from infdiff.tables import text_table

_GIB = 1024**3
# On one H200.
_BEFORE = "estimates are from counts of instructions and bytes, for one H200, before any optimisation"


@dataclass(frozen=True)
class Figure:
    """A number that a part leaves in a file of the folder. read(content) returns it, or None where it is not there."""

    what: str
    unit: str
    file: str
    read: Callable[[Any], float | None]
    estimate: str = ""
    target: str = ""

    def measured(self, folder: Path) -> str:
        """The number as text, "" where it was not measured."""
        try:
            value = self.read(_content(folder / self.file))
        except (OSError, ValueError, LookupError, TypeError):
            return ""
        return "" if value is None else f"{value:#.3g} {self.unit}".strip()


def _content(path: Path) -> Any:
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _operator(name: str, direction: str, *, search: bool = False) -> Callable[[Any], float | None]:
    """The median time of an operator at the target shape, by the default route."""

    def read(content: Any) -> float | None:
        wanted = {"operator": name, "pass": direction, "search": search, "backend": "auto", "scale": 1.0, "one_in": 4}
        rows = [row for row in content["results"] if all(row[key] == value for key, value in wanted.items())]
        return rows[0]["median_ms"] if rows else None

    return read


def _step(key: str, subsample: float | None = None, unit: float = 1.0) -> Callable[[Any], float | None]:
    def read(content: Any) -> float | None:
        rows = [row for row in content["results"] if subsample in (None, row["subsample"])]
        return rows[0][key] / unit if rows and rows[0][key] is not None else None

    return read


def _last(key: str) -> Callable[[Any], float | None]:
    return lambda records: next((record[key] for record in reversed(records) if key in record), None)


_BOTH = "forward+backward"
_CONVOLUTION = "depthwise convolution 7 x 7"
FIGURES = (
    Figure(
        f"{_CONVOLUTION}, forward", "ms", "ops.json", _operator("sparse_depthwise_conv2d", "forward"), "0.20 to 0.25"
    ),
    Figure(f"{_CONVOLUTION}, both", "ms", "ops.json", _operator("sparse_depthwise_conv2d", _BOTH), "1.4 to 1.8", "0.6"),
    Figure(
        "points to grid with search, both",
        "ms",
        "ops.json",
        _operator("points_to_grid", _BOTH, search=True),
        "0.25 to 0.33",
        "0.5",
    ),
    Figure("grid to points, both", "ms", "ops.json", _operator("grid_to_points", _BOTH), "0.35 to 0.42"),
    Figure("training step, 1/4 of the pixels", "ms", "train.json", _step("median_ms"), "165 to 190", "60"),
    Figure("its peak memory", "GiB", "train.json", _step("peak_bytes", unit=_GIB), "37 to 41", "16"),
    Figure("the step as a CUDA graph", "ms", "train-graph.json", _step("median_ms"), "", "60"),
    Figure("the step compiled", "ms", "train-compiled.json", _step("median_ms"), "110 to 125", "60"),
    Figure("its peak memory, compiled", "GiB", "train-compiled.json", _step("peak_bytes", unit=_GIB), "20 to 24", "16"),
    Figure("training step, all pixels", "ms", "train-densities.json", _step("median_ms", 1.0), "", "110"),
    Figure("training step, 1/2", "ms", "train-densities.json", _step("median_ms", 2.0)),
    Figure("training step, 1/8", "ms", "train-densities.json", _step("median_ms", 8.0)),
    Figure("training step, 1/16", "ms", "train-densities.json", _step("median_ms", 16.0)),
    Figure("sampling step, 256 x 256, batch 8", "ms", "sample-256.json", _step("median_ms"), "27 to 33", "8"),
    Figure("sampling step, 512 x 512, batch 4", "ms", "sample-512.json", _step("median_ms")),
    Figure("sampling step, 1024 x 1024", "ms", "sample-1024.json", _step("median_ms"), "50 to 65", "10"),
    Figure("sampling step, 2048 x 2048", "ms", "sample-2048.json", _step("median_ms"), "250 to 300"),
    Figure("step of the demo, one kernel at a time", "ms", "graph.json", lambda content: content["eager_ms"]),
    Figure("the same as a CUDA graph", "ms", "graph.json", lambda content: content["recorded_ms"]),
    Figure("largest difference of their losses", "", "graph.json", lambda content: content["largest_difference"]),
    Figure("images a second of the real training", "", "run/log.jsonl", _last("images_per_second")),
    Figure("its last loss", "", "run/log.jsonl", _last("loss")),
)


def table(parts: Sequence[Part], folder: Path) -> str:
    """The outcome of every part, then every figure: measured, estimated, wanted."""
    ends = []
    for part in parts:
        outcome = outcome_of(part, folder)
        state = "not run" if outcome is None else outcome.state
        broken = outcome is not None and outcome.breaks_a_law(part)
        seconds = f"{outcome.seconds:.0f}" if outcome is not None and outcome.seconds else ""
        why = "" if outcome is None else outcome.why
        ends.append(
            {"part": part.name, "seconds": seconds, "outcome": state, "": "BROKEN" if broken else "", "why": why}
        )
    figures = [
        {"figure": f.what, "measured": f.measured(folder), "estimated": f.estimate, "target": f.target} for f in FIGURES
    ]
    return "\n".join(
        [text_table(ends, left=("part", "outcome", "", "why")), "", text_table(figures, left=("figure",)), "", _BEFORE]
    )

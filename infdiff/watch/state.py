"""Contents of the page of a run, read from its folder. Nothing is written, and no lock is taken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infdiff.config.settings import Config
from infdiff.runs.folder import RunFolder
from infdiff.training.log import logged, read_log

# More points of a curve than this are not told apart on a screen.
_MOST_POINTS = 1500
_MOST_PICTURES = 48

Curve = list[tuple[int, float]]


def state_of(run: RunFolder) -> dict[str, Any]:
    """Return all that the page shows, for JSON. Raises UserError when the folder holds no run."""
    config = run.config()
    records = read_log(run.log)
    step = max((int(record["step"]) for record in records), default=0)
    return {
        "name": run.path.resolve().name,
        "step": step,
        "steps": config.train.steps,
        "seconds_left": _seconds_left(config, records, step),
        "age": time.time() - run.log.stat().st_mtime if run.log.is_file() else None,
        "curves": {
            "loss": {"training": _curve(records, "loss"), "validation": _curve(records, "validation_loss")},
            "loss of each resolution": _inner_curves(records, "losses"),
            "learning rate": {"": _curve(records, "learning_rate")},
            "images/s": {"": _curve(records, "images_per_second")},
        },
        "evaluations": [
            {"step": record["step"], **record["evaluation"]}
            for record in records
            if isinstance(record.get("evaluation"), dict)
        ],
        "pictures": [path.name for path in pictures(run)[:_MOST_PICTURES]],
        "reports": reports(run),
    }


def pictures(run: RunFolder) -> list[Path]:
    """Return the previews of a run, the newest first."""
    found = run.samples.glob("*-????????.png")
    return sorted(found, key=lambda path: (path.stem.rsplit("-", 1)[1], path.name), reverse=True)


def reports(run: RunFolder) -> list[str]:
    """Return the paths of the reports of `infdiff evaluate` that lie in the run's folder, relative to it."""
    found = [*run.path.glob("*.html"), *run.path.glob("evaluation/*.html")]
    return sorted(str(path.relative_to(run.path)) for path in found)


def _seconds_left(config: Config, records: Sequence[dict[str, Any]], step: int) -> float | None:
    speeds = logged(records, "images_per_second")[-5:]
    speed = sum(value for _, value in speeds) / len(speeds) if speeds else 0.0
    if speed <= 0 or step >= config.train.steps:
        return None
    return (config.train.steps - step) * config.train.batch_size * config.train.accumulate / speed


def _curve(records: Sequence[dict[str, Any]], key: str) -> Curve:
    points = logged(records, key)
    return _thinned([(step, value) for step, value in points if isinstance(value, int | float)])


def _inner_curves(records: Sequence[dict[str, Any]], key: str) -> dict[str, Curve]:
    rows = [{"step": record["step"], **record[key]} for record in records if isinstance(record.get(key), dict)]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return {name: _curve(rows, name) for name in names}


def _thinned(points: Curve) -> Curve:
    """Return no more points than can be seen, the last one among them."""
    every = -(-len(points) // _MOST_POINTS)
    return points[:: -max(every, 1)][::-1]

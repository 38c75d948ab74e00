"""Results of an evaluation as a text table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from infdiff.metrics.compare import COSTS, LEGEND, columns_of, metric_of
from infdiff.tables import text_table

_WIDTH = 120
_PLAIN = ("run", "what", "size", "at", "images", "real", "patches", "broken")


def as_text(results: Sequence[dict[str, Any]], warnings: Sequence[str]) -> str:
    """Return a table with a row for each result, the meaning of its columns, and the warnings."""
    metrics = columns_of(results)
    names = [name for name in (*_PLAIN, *metrics, *COSTS) if any(name in row for row in results)]
    if all(row["at"] == row["size"] for row in results):
        names.remove("at")
    if len({row["what"] for row in results}) == 1:
        names.remove("what")
    lines = [text_table([{name: _cell(row.get(name)) for name in names} for row in results]), ""]
    lines += [f"{name}: {LEGEND[name]}" for name in dict.fromkeys(map(metric_of, metrics))]
    lines += [f"{name}: {COSTS[name]}" for name in names if name in COSTS]
    for warning in warnings:
        lines += textwrap.wrap(f"warning: {warning}", _WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return str(len(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)

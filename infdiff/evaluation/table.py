"""Results of an evaluation as a text table and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infdiff.metrics.compare import COSTS, LEGEND

_WIDTH = 120
_PLAIN = ("run", "what", "size", "at", "images", "real", "broken")
_TEXTS = ("run", "what")


def save_json(path: Path, content: dict[str, Any]) -> None:
    """To a file that appears only when it is whole; what is not a finite number is null."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(_finite(content), indent=1) + "\n")
    partial.replace(path)


def as_text(results: Sequence[dict[str, Any]], warnings: Sequence[str]) -> str:
    """A line for each result, what the columns mean, and the warnings."""
    names = [name for name in (*_PLAIN, *LEGEND, *COSTS) if any(name in row for row in results)]
    if all(row["at"] == row["size"] for row in results):
        names.remove("at")
    if len({row["what"] for row in results}) == 1:
        names.remove("what")
    cells = [{name: _cell(row.get(name)) for name in names} for row in results]
    widths = {name: max(len(name), *(len(line[name]) for line in cells)) for name in names}

    def line(values: dict[str, str]) -> str:
        justified = (values[n].ljust(widths[n]) if n in _TEXTS else values[n].rjust(widths[n]) for n in names)
        return "  ".join(justified).rstrip()

    lines = [line({name: name for name in names}), *map(line, cells), ""]
    lines += [f"{name}: {LEGEND[name]}" for name in names if name in LEGEND]
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


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

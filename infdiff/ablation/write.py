"""A table in small as Markdown: what was measured, and what the paper has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infdiff.ablation.tables import AblationTable, Row


def as_markdown(
    table: AblationTable, plan: Mapping[str, Mapping[str, Any]], results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """Return both tables. results: rows of an evaluation by the name of the table's row, one for each size."""
    sizes = list(dict.fromkeys(str(found["size"]) for rows in results.values() for found in rows))
    timed = any("seconds_a_step" in plan[name] for name in results)
    heading = [
        "",
        "steps",
        *(["ms a step"] if timed else []),
        *(f"Fréchet {size}" for size in sizes),
        *(f"KID {size}" for size in sizes),
    ]
    lines = []
    for name, found in results.items():
        by_size = {str(row["size"]): row for row in found}
        cells = [name, f"{plan[name]['steps']:,}", *([_milliseconds(plan[name])] if timed else [])]
        cells += [_cell(by_size.get(size), "frechet", ".1f") for size in sizes]
        cells += [_cell(by_size.get(size), "kid", ".3f") for size in sizes]
        lines.append(cells)
    text = [f"# {table.title}", "", *_lines(heading, lines)]
    published = [_published(row) for row in table.rows if row.published]
    if published:
        text += ["", "The paper's:", "", *_lines(["", *table.published], published)]
    return "\n".join([*text, ""])


def _published(row: Row) -> list[str]:
    return [row.name, *("–" if value is None else f"{value:g}" for value in row.published)]


def _milliseconds(plan: Mapping[str, Any]) -> str:
    return f"{1000 * plan['seconds_a_step']:.0f}" if "seconds_a_step" in plan else "–"


def _cell(found: Mapping[str, Any] | None, metric: str, form: str) -> str:
    return format(found[metric], form) if found is not None and metric in found else "–"


def _lines(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heading, ["---"] * len(heading), *rows)]

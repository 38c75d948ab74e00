"""Text tables with aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def text_table(rows: Sequence[Mapping[str, str]], left: Collection[str] = ("what", "run")) -> str:
    """Return a heading and a line for each row; columns are aligned to the right, those in `left` to the left.

    Columns stand in the order in which the rows first name them. A column without any text is left out.
    """
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    lines = [names, *([row.get(name, "") for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(names, cells, widths, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join(map(line, lines))

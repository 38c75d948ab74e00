"""Plots of a report, as SVG that takes its text colour from the page around it."""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor

from infdiff.coordinates import parse_size
from infdiff.evaluation.examples import Curves
from infdiff.metrics.compare import columns_of
from infdiff.training.log import logged

# Seen well on white and on black.
COLOURS = (
    *("#3a86d4", "#d9791a", "#2a9d74", "#a56cc9", "#d14d5b"),
    *("#8a8f3c", "#e377c2", "#17becf", "#9c755f", "#7f8c99"),
)
# Stands for the page's own ink until the picture is drawn.
_INK = "#010203"
_COLUMNS = 3
_WIDTH, _HEIGHT = 3.6, 2.6  # of one panel, in inches
_LETTER, _LINE = 0.065, 0.16  # of a legend's text, in inches

Point = tuple[float, float]


def plot_quality(series: Mapping[str, Sequence[dict[str, Any]]], trained: Sequence[int]) -> str | None:
    """Each metric against the shorter side in pixels, a line for each name's rows; `trained` sides are marked.

    None where no row has a metric.
    """
    names = columns_of(row for rows in series.values() for row in rows)
    if not names:
        return None
    with _panels(names) as (figure, axes):
        for name, panel in zip(names, axes, strict=True):
            for side in trained:
                panel.axvline(side, color=_INK, alpha=0.35, linestyle=":", linewidth=1)
            sides: set[int] = set()
            for label, rows, colour in _coloured(series):
                points = sorted(
                    (min(parse_size(row["size"])), row[name]) for row in rows if math.isfinite(row.get(name, math.nan))
                )
                sides |= {side for side, _ in points}
                _line(panel, points, label, colour, "o-")
            panel.set(title=name, xlabel="pixels")
            _powers_of_two(panel, sorted(sides))
        return _finished(figure, axes)


def plot_curves(curves: Mapping[str, Mapping[str, Curves]], kind: str) -> str | None:
    """Plot what images and real ones have, in a panel for each key, of each name in it. None without a panel.

    kind: that of the curves, which says what the axes are.
    """
    if not curves:
        return None
    labels = {"spectrum": ("cycles a side", "power", "log"), "variogram": ("distance in {}", "variogram", "linear")}
    across, up, scale = labels[kind]
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    with _panels(list(curves)) as (figure, axes):
        for (title, found), panel in zip(curves.items(), axes, strict=True):
            for name, one in found.items():
                _line(panel, _points(one.places, one.images), name, colours[name], "-")
            _line(panel, _points(one.places, one.real), "real", _INK, "--")
            panel.set(title=_as_text(title), xlabel=_as_text(across.format(one.unit)), ylabel=up, yscale=scale)
            lowest, highest = (math.log2(place) for place in (one.places[0], one.places[-1]))
            _powers_of_two(panel, [2.0**n for n in range(math.ceil(lowest), math.floor(highest) + 1)])
        return _finished(figure, axes)


def plot_losses(series: Mapping[str, Sequence[dict[str, Any]]]) -> str | None:
    """Training and validation loss over steps, of each name's log. None where no loss is logged."""
    kinds = {"loss": "training loss", "validation_loss": "validation loss"}
    kinds = {key: title for key, title in kinds.items() if any(logged(rows, key) for rows in series.values())}
    if not kinds:
        return None
    with _panels(list(kinds)) as (figure, axes):
        for (key, title), panel in zip(kinds.items(), axes, strict=True):
            for label, rows, colour in _coloured(series):
                points = logged(rows, key)
                _line(panel, points, label, colour, "o-" if len(points) < 40 else "-")
            panel.set(title=title, xlabel="step", yscale="log")
        return _finished(figure, axes)


def _points(places: Sequence[float], values: Tensor) -> list[Point]:
    return [pair for pair in zip(places, values.tolist(), strict=True) if math.isfinite(pair[1])]


def _coloured(series: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for place, (label, values) in enumerate(series.items()):
        yield label, values, COLOURS[place % len(COLOURS)]


def _line(panel: Any, points: Sequence[Point], label: str, colour: str, style: str) -> None:
    if points:
        panel.plot(
            *zip(*points, strict=True), style, color=colour, label=_as_text(label), markersize=3.5, linewidth=1.4
        )


def _as_text(label: str) -> str:
    """A name as Matplotlib shows it: no formula between dollars, and no bytes that are no text."""
    return label.encode(errors="backslashreplace").decode().replace("$", r"\$")


def _powers_of_two(panel: Any, ticks: Sequence[float]) -> None:
    """An axis on which twice as much is a step, with numbers at `ticks`."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


@contextmanager
def _panels(names: Sequence[str]) -> Iterator[tuple[Any, list[Any]]]:
    """A figure with a panel for each name, side by side and then below."""
    import matplotlib
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: dict[str, Any] = dict.fromkeys((*ink, "grid.color"), _INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "infdiff", "font.size": 8, "axes.facecolor": "none"}
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(cast(Any, style)):
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
        axes = [figure.add_subplot(rows, columns, place + 1) for place in range(len(names))]
        yield figure, axes


def _finished(figure: Any, axes: Sequence[Any]) -> str:
    for panel in axes:
        panel.grid(alpha=0.15, which="major")
        panel.spines[["top", "right"]].set_visible(False)
    fullest = max(axes, key=lambda panel: len(panel.get_legend_handles_labels()[1]))
    handles, labels = fullest.get_legend_handles_labels()
    if len(labels) > 1:
        # Next to the panels, which keep their width: a legend of many names would hide what it names.
        width, height = figure.get_size_inches()
        beside = 0.6 + _LETTER * max(map(len, labels))
        figure.set_size_inches(width + beside, max(height, 0.3 + _LINE * len(labels)))
        figure.legend(handles, labels, frameon=False, loc="outside right upper")
    return _inline(figure)


def _inline(figure: Any) -> str:
    """The <svg> element. Its ids are its own, so that several live on one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    mark = f"p{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'\bid="', f'id="{mark}', text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{mark}", text)

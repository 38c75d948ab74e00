"""An evaluation as one HTML file that opens offline: tables, plots, images, and all that is needed to repeat it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from infdiff.coordinates import parse_size
from infdiff.errors import UserError
from infdiff.evaluation.looks import Look
from infdiff.evaluation.plots import plot_losses, plot_quality, plot_spectra
from infdiff.files import save_text
from infdiff.metrics.compare import COSTS, LEGEND, MORE_IS_BETTER

_TEMPLATE = "report.html"


@dataclass(frozen=True)
class Subject:
    """A run, or a folder of images: its rows of results and what belongs to them.

    facts: what else is known, by name; trained: the sizes that it was trained at; log: records of its training.
    """

    name: str
    results: Sequence[dict[str, Any]]
    looks: Sequence[Look] = ()
    warnings: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    trained: Sequence[str] = ()
    config: str = ""
    log: Sequence[dict[str, Any]] = ()


def save_report(path: Path, subjects: Sequence[Subject], command: str, facts: dict[str, Any]) -> None:
    """Write the report of one subject or more, side by side, to a file that appears only when it is whole.

    command: how to make it again; facts: what holds for all, by name. Raises UserError when Jinja2 is missing.
    """
    save_text(path, as_html(subjects, command, facts))


def as_html(subjects: Sequence[Subject], command: str, facts: dict[str, Any]) -> str:
    """The report's text. Raises UserError when Jinja2 is missing."""
    try:
        import jinja2
    except ImportError as error:
        raise UserError(f"--report: {error}: pip install 'infdiff[eval]'") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "picture": _picture, "plain": _plain}
    template = environment.from_string(resources.files("infdiff.evaluation").joinpath(_TEMPLATE).read_text())
    rows = _rows(subjects)
    names = [name for name in LEGEND if any(name in row for row in rows)]
    looks = [(subject, look) for subject in subjects for look in subject.looks]
    return template.render(
        subjects=subjects,
        looks=sorted(looks, key=lambda pair: _pixels(pair[1].size)),
        command=command,
        facts=facts,
        rows=rows,
        metrics=names,
        legend=LEGEND,
        costs=COSTS,
        best=_best(rows, names),
        several=len({row["what"] for row in rows}) > 1,
        quality=plot_quality(_series(subjects), sorted({min(parse_size(t)) for s in subjects for t in s.trained})),
        spectra=plot_spectra(*_spectra(subjects)),
        losses=plot_losses({subject.name: subject.log for subject in subjects}),
    )


def _rows(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """All rows by size, those of one size side by side."""
    rows = [
        row | {"subject": subject.name, "trained": row["size"] in subject.trained}
        for subject in subjects
        for row in subject.results
    ]
    return sorted(rows, key=lambda row: _pixels(row["size"]))


def _best(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> set[tuple[int, str]]:
    """(row's place, metric) of the best at its size, where there are better and worse ones."""
    best: set[tuple[int, str]] = set()
    for name in names:
        for size in {row["size"] for row in rows}:
            own = {place: row[name] for place, row in enumerate(rows) if row["size"] == size and name in row}
            if name in MORE_IS_BETTER and len(set(own.values())) > 1:
                value = (max if MORE_IS_BETTER[name] else min)(own.values())
                best |= {(place, name) for place, found in own.items() if found == value}
    return best


def _label(subject: Subject, what: str) -> str:
    """A subject's name, and what of it where it has several."""
    return subject.name if len({row["what"] for row in subject.results}) == 1 else f"{subject.name}: {what}"


def _series(subjects: Sequence[Subject]) -> dict[str, list[dict[str, Any]]]:
    series: dict[str, list[dict[str, Any]]] = {}
    for subject in subjects:
        for row in subject.results:
            series.setdefault(_label(subject, row["what"]), []).append(row)
    return series


def _spectra(subjects: Sequence[Subject]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """By label and size, those of images; by size, those of real ones."""
    series: dict[str, dict[str, Tensor]] = {}
    real: dict[str, Tensor] = {}
    for subject in subjects:
        for look in subject.looks:
            if look.spectrum is not None and look.real_spectrum is not None:
                series.setdefault(_label(subject, look.what), {})[look.size] = look.spectrum
                real.setdefault(look.size, look.real_spectrum)
    return series, {size: real[size] for size in sorted(real, key=_pixels)}


def _pixels(size: str) -> int:
    return math.prod(parse_size(size))


def _plain(value: Any) -> str:
    """Settings and lists as people write them."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any) -> str:
    """Four digits; nothing for what was not measured."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _picture(image: Tensor) -> str:
    """(3, H, W) uint8 -> a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

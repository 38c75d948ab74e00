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
from infdiff.errors import OptionError
from infdiff.evaluation.examples import Curves, ExampleSheet
from infdiff.evaluation.plots import plot_curves, plot_losses, plot_quality
from infdiff.files import save_text
from infdiff.metrics.compare import COSTS, LEGEND, MORE_IS_BETTER, columns_of, metric_of

_TEMPLATE = "report.html"


@dataclass(frozen=True)
class ReportSubject:
    """A run, or a folder of images, with its rows of results.

    facts: further facts by name; trained: the sizes of its training; log: records of its training.
    """

    name: str
    results: Sequence[dict[str, Any]]
    examples: Sequence[ExampleSheet] = ()
    warnings: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    trained: Sequence[str] = ()
    config: str = ""
    log: Sequence[dict[str, Any]] = ()


def save_report(
    path: Path, subjects: Sequence[ReportSubject], command: str, facts: dict[str, Any], title: str = ""
) -> None:
    """Write the report of one or more subjects, side by side.

    command: the command that made it; facts: facts about all subjects, by name; title: of the page, by default the
    subjects' names. Raises UserError when Jinja2 is missing or the file cannot be written.
    """
    save_text(path, as_html(subjects, command, facts, title))


def as_html(subjects: Sequence[ReportSubject], command: str, facts: dict[str, Any], title: str = "") -> str:
    """Return the report as HTML. Raises UserError when Jinja2 is missing."""
    try:
        import jinja2
    except ImportError as error:
        raise OptionError("report", None, f"{error}: pip install 'infdiff[eval]'") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "image": _image, "plain": _plain}
    template = environment.from_string(resources.files("infdiff.evaluation").joinpath(_TEMPLATE).read_text())
    rows = _rows(subjects)
    names = columns_of(rows)
    examples = [(subject, example) for subject in subjects for example in subject.examples]
    return template.render(
        heading=title or " · ".join(subject.name for subject in subjects),
        caveats=_caveats(subjects),
        subjects=subjects,
        examples=sorted(examples, key=lambda pair: _pixels(pair[1].size)),
        command=command,
        facts=facts,
        rows=rows,
        metrics=names,
        legend={name: LEGEND[metric_of(name)] for name in names},
        costs=COSTS,
        best=_best(rows, names),
        several=len({row["what"] for row in rows}) > 1,
        quality=plot_quality(_series(subjects), sorted({min(parse_size(t)) for s in subjects for t in s.trained})),
        spectra=plot_curves(_curves(subjects, "spectrum"), "spectrum"),
        variograms=plot_curves(_curves(subjects, "variogram"), "variogram"),
        losses=plot_losses({subject.name: subject.log for subject in subjects}),
    )


def _rows(subjects: Sequence[ReportSubject]) -> list[dict[str, Any]]:
    """Return all rows, ordered by size."""
    rows = [
        row | {"subject": subject.name, "trained": row["size"] in subject.trained}
        for subject in subjects
        for row in subject.results
    ]
    return sorted(rows, key=lambda row: _pixels(row["size"]))


def _caveats(subjects: Sequence[ReportSubject]) -> dict[str, list[str]]:
    """Return each warning with the names of the subjects that it is about; none where it is about all of them."""
    lines = dict.fromkeys(line for subject in subjects for line in subject.warnings)
    about = {line: [subject.name for subject in subjects if line in subject.warnings] for line in lines}
    return {line: names if len(names) < len(subjects) else [] for line, names in about.items()}


def _best(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> set[tuple[int, str]]:
    """Return (place of the row, metric) of the best value at each size, of each channel of fields, if values differ."""
    best: set[tuple[int, str]] = set()
    kinds = [(row["size"], row.get("channel")) for row in rows]
    for name in names:
        for kind in set(kinds):
            own = {place: row[name] for place, row in enumerate(rows) if kinds[place] == kind and name in row}
            if (metric := metric_of(name)) in MORE_IS_BETTER and len(set(own.values())) > 1:
                value = (max if MORE_IS_BETTER[metric] else min)(own.values())
                best |= {(place, name) for place, found in own.items() if found == value}
    return best


def _label(subject: ReportSubject, what: str) -> str:
    """Return the name of a line in a plot: the subject, and `what` if the subject has several."""
    return subject.name if len({row["what"] for row in subject.results}) == 1 else f"{subject.name}: {what}"


def _series(subjects: Sequence[ReportSubject]) -> dict[str, list[dict[str, Any]]]:
    series: dict[str, list[dict[str, Any]]] = {}
    for subject in subjects:
        for row in subject.results:
            series.setdefault(_label(subject, row["what"]), []).append(row)
    return series


def _curves(subjects: Sequence[ReportSubject], kind: str) -> dict[str, dict[str, Curves]]:
    """Return the curves of a kind by panel, from small images to large ones, and by label."""
    found: dict[str, dict[str, Curves]] = {}
    pairs = [(subject, example) for subject in subjects for example in subject.examples]
    for subject, example in sorted(pairs, key=lambda pair: _pixels(pair[1].size)):
        for curves in example.curves:
            if curves.kind == kind:
                # Each channel of fields has rows, and a panel, of its own.
                label = _label(subject, example.what) if len(example.curves) == 1 else subject.name
                found.setdefault(curves.panel, {})[label] = curves
    return found


def _pixels(size: str) -> int:
    return math.prod(parse_size(size))


def _plain(value: Any) -> str:
    """Return settings and lists as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any) -> str:
    """Return a number with four digits, or an empty text for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _image(image: Tensor) -> str:
    """Return an image (3, H, W) uint8 as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

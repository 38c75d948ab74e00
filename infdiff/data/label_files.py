"""Labels of the images of a source: from a CSV file, or from the folders that they lie in."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infdiff.data.labels import LabelDescription, Value
from infdiff.errors import OptionError

# What `--labels` says in place of a file.
FOLDERS = "folders"


@dataclass(frozen=True)
class SourceLabels:
    """The label of each image of a source, by its name. classes: their names; none where labels are vectors."""

    values: Mapping[str, Value]
    classes: tuple[str, ...] = ()

    def description(self, used: Sequence[str]) -> LabelDescription:
        """Return what labels mean, with the statistics of the images that are used (a name for each entry)."""
        if self.classes:
            return LabelDescription(classes=self.classes)
        return LabelDescription.fitted([self.values[name] for name in used])


def read_labels(option: str, names: Sequence[str]) -> SourceLabels:
    """Return the labels of images: of a CSV file, or of the folders they lie in, where the option is "folders".

    A CSV line is a file name and a class, or numbers; the first line may be a title. One column of whole numbers or of
    words is classes, anything else vectors. Raises OptionError for a file without a label, a label without a file, and
    labels of several kinds.
    """
    if option == FOLDERS:
        return _named({name: _folder(name) for name in names})
    rows = _rows(option, frozenset(names))
    known = frozenset(names)
    for name in rows:
        if name not in known:
            raise OptionError("labels", option, f"names {name}, and there is no such image")
    for name in names:
        if name not in rows:
            raise OptionError("labels", option, f"has no label for {name}: add a line, or remove the image")
    first, width = names[0], len(rows[names[0]])
    for name, row in rows.items():
        if len(row) != width:
            raise OptionError("labels", option, f"{name} has {len(row)} values, and {first} {width}")
    if width == 1 and not _are_measured([row[0] for row in rows.values()]):
        return _named({name: row[0] for name, row in rows.items()})
    return SourceLabels({name: _numbers(option, name, row) for name, row in rows.items()})


def _rows(option: str, known: frozenset[str]) -> dict[str, list[str]]:
    """The cells after the file name, by file name."""
    try:
        with Path(option).open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if any(map(str.strip, line))]
    except FileNotFoundError:
        raise OptionError("labels", option, f"no such file: give a CSV file, or {FOLDERS}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError("labels", option, f"cannot be read as a CSV file ({error})") from error
    if lines and lines[0][0] not in known and not PurePosixPath(lines[0][0]).suffix:
        del lines[0]  # a title
    rows: dict[str, list[str]] = {}
    for name, *cells in lines:
        if not cells or "" in cells:
            raise OptionError("labels", option, f"the line of {name} has an empty label")
        if rows.setdefault(name, cells) != cells:
            raise OptionError("labels", option, f"has two labels for {name}")
    return rows


def _folder(name: str) -> str:
    parts = PurePosixPath(name).parts
    if len(parts) < 2:
        raise OptionError("labels", FOLDERS, f"{name} lies in no folder: want CLASS/{name}, or a CSV file")
    return parts[0]


def _named(names: Mapping[str, str]) -> SourceLabels:
    classes = tuple(sorted(set(names.values())))
    numbers = {name: float(number) for number, name in enumerate(classes)}
    return SourceLabels({image: (numbers[name],) for image, name in names.items()}, classes)


def _are_measured(cells: Sequence[str]) -> bool:
    """Return True for finite numbers of which one is written as 3.5 or -3: a class's name may well be 3."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return False
    return not all(cell.isdecimal() for cell in cells) and all(map(math.isfinite, numbers))


def _numbers(option: str, name: str, cells: Sequence[str]) -> Value:
    try:
        numbers = tuple(map(float, cells))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise OptionError("labels", option, f"{name}: {','.join(cells)}: want one class name, or finite numbers")
    return numbers

"""Records that a run keeps next to its configuration: what its data mean, so that later calls need no data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from infdiff.errors import UserError
from infdiff.files import save_json

_Kept = TypeVar("_Kept")


class Described(Protocol):
    """A description that is kept as JSON."""

    def record(self) -> dict[str, Any]:
        """Return the description as numbers and texts."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Invert `record`. Raises ValueError, TypeError, KeyError or AttributeError for anything else."""


def keep_record(file: Path, description: Described | None, trained: str) -> None:
    """Write a description, or check that the file holds the same one.

    trained: what to say of a run that has another one. Raises UserError for such a run, and for a damaged file.
    """
    if file.exists() and (description is None or read_record(file, type(description).from_record) != description):
        raise UserError(f"{file.parent} was trained {trained}: choose another folder")
    if description is not None:
        save_json(file, description.record())


def read_record(file: Path, decode: Callable[[Mapping[str, Any]], _Kept]) -> _Kept | None:
    """Read a description; None for a run without. Raises UserError for a damaged file."""
    if not file.exists():
        return None
    try:
        return decode(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}): take it from the run's copy, or train again") from error

"""Kinds of limits that settings have; each error names the setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from infdiff.errors import UserError


def require_choices(choices: Mapping[str, tuple[str, Collection[str]]]) -> None:
    """Raise UserError for the first key whose value is not one of those allowed."""
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{key}: {value!r}: choose one of {', '.join(allowed)}")


def require_at_least_one(numbers: Mapping[str, int]) -> None:
    """Raise UserError for the first key whose number is below 1."""
    for key, value in numbers.items():
        if value < 1:
            raise UserError(f"{key}: {value}: want at least 1")

"""Base class of all sections of settings, and the kinds of values that they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from infdiff.coordinates import parse_size

_Value = TypeVar("_Value")

# Larger whole numbers count nothing here, and overflow in libraries below.
LARGEST = 2**31 - 1


class Section(BaseModel):
    """Settings that belong together: no key but those listed, no value of another type, nothing infinite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)

    def changed(self, **values: object) -> Self:
        """Return the section with other values, held to its limits."""
        return type(self).model_validate({**dict(self), **values})


def one_of(choices: Collection[str]) -> AfterValidator:
    """Return the validator of a text that names one of `choices`."""

    def check(value: str) -> str:
        if value not in choices:
            raise PydanticCustomError("refused", "choose one of {names}", {"names": ", ".join(choices)})
        return value

    return AfterValidator(check)


def some_of(choices: Collection[str]) -> BeforeValidator:
    """Return the validator of a list of texts that each name one of `choices`."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name in choices for name in value):
            raise PydanticCustomError("refused", "want a list of some of {names}", {"names": ", ".join(choices)})
        return tuple(dict.fromkeys(value))

    return BeforeValidator(check)


def odd(most: int = LARGEST) -> AfterValidator:
    """Return the validator of an odd number from 1 to `most`."""

    def check(value: int) -> int:
        if not (1 <= value <= most and value % 2):
            limit = "" if most == LARGEST else f" from 1 to {most}"
            raise PydanticCustomError("refused", "want an odd number{limit}", {"limit": limit})
        return value

    return AfterValidator(check)


def _size(value: _Value) -> _Value:
    parse_size(str(value))
    return value


def _size_or_none(value: _Value) -> _Value:
    return value if value == 0 else _size(value)


def _subsample(value: object) -> float | dict[str, float]:
    """Return a rate, or a mapping of rates to weights, as they are written in a configuration."""
    if not isinstance(value, dict):
        return _rate(value)
    try:
        weights = {f"{_rate(float(rate)):g}": _number(weight) for rate, weight in value.items()}
    except ValueError:
        weights = {}
    if any(weights.values()) and min(weights.values()) >= 0:
        return weights
    raise PydanticCustomError("refused", "want rates from 1 on, with weights of which one is above 0: {1: 1, 4: 6}")


def _rate(value: object) -> float:
    rate = _number(value)
    if not 1 <= rate <= LARGEST:
        raise PydanticCustomError("refused", "want at least 1")
    return rate


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("refused", "want a number, or rates with weights: {1: 1, 4: 6}")
    if not math.isfinite(value):
        raise PydanticCustomError("refused", "want a finite number")
    return float(value)


def _switch(value: object) -> object:
    """Return True, False or "auto"."""
    if isinstance(value, bool) or value == "auto":
        return value
    raise PydanticCustomError("refused", "want auto, true or false")


def _name(value: str) -> str:
    if value in ("", ".", "..") or len(value) > 200 or not value.isprintable() or set(value) & set("/\\"):
        raise PydanticCustomError("refused", "want a plain name of at most 200 letters, without a folder")
    return value


def _from_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _pairs(value: object) -> object:
    """Return lists of lists as tuples of tuples of floats, as YAML and JSON write limits."""
    if not isinstance(value, list | tuple):
        return value
    rows = [tuple(row) if isinstance(row, list | tuple) else row for row in value]
    whole = [isinstance(row, tuple) and all(type(number) in (int, float) for number in row) for row in rows]
    return tuple(tuple(map(float, row)) if good else row for row, good in zip(rows, whole, strict=True))


def _rising(value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if any(not low < high for low, high in value):
        raise PydanticCustomError("refused", "want pairs of a lower and a higher number: [[-1, 1]]")
    return value


Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrNone = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
UpToOne = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Name = Annotated[str, AfterValidator(_name)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_from_list)]
CountsOrNone = Annotated[tuple[CountOrNone, ...], BeforeValidator(_from_list)]
# 64, or 48x64 (height x width); and the same with 0 for none.
SizeText = Annotated[int | str, AfterValidator(_size)]
SizeTextOrNone = Annotated[int | str, AfterValidator(_size_or_none)]
WeightBySize = dict[Annotated[str, AfterValidator(_size)], NotNegative]
# One pixel in 4; or several rates, one drawn for each step with these weights: {1: 1, 4: 6}.
Subsample = Annotated[float | dict[str, float], PlainValidator(_subsample)]
# True, False, or "auto": where it works.
Switch = Annotated[bool | str, PlainValidator(_switch)]
CountBySize = dict[Annotated[str, AfterValidator(_size)], Count]


# The lowest and the highest value of all channels, or of each: [[-1, 1]]; none: ().
Limits = Annotated[tuple[tuple[float, float], ...], BeforeValidator(_pairs), AfterValidator(_rising)]


def tag_of(key: str, default: str) -> Callable[[Any], str | None]:
    """Return what reads the kind of a section from its setting `key`, for a union of kinds."""

    def tag(value: Any) -> str | None:
        if isinstance(value, dict):
            return str(value.get(key, default))
        return getattr(value, key, None)

    return tag

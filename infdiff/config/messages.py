"""pydantic's account of a configuration that cannot work, as one line that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from infdiff.config.keys import KEYS, Kinds, Place, discriminator_of, is_known, other_kind, place_of, tag
from infdiff.schema import LARGEST

# Keys of earlier layouts, and what they are called now.
RENAMED = {
    "model.kind": "method",
    "model.grid.size": "model.grid_size",
    "model.grid.scale_with_output": "model.scale_grid",
    "train.code_noise": "train.latent_noise",
}
_KINDS_OF_VALUES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    int | str: "64 or 48x64",
    tuple[tuple[float, float], ...]: "pairs of numbers, as [[-1, 1]]",
}
_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def explain(error: ValidationError, values: Any, where: str) -> str:
    """Return the first mistake in `values` as one line. where: what they were read from; may be empty.

    A key of an earlier layout comes first, for it explains the others.
    """
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=_rank)
    kind, place = first["type"], place_of(first["loc"])
    start = f"{where}: " if where else ""
    if kind == "union_tag_invalid":
        return _unknown_kind(place, first["input"])
    if kind == "extra_forbidden":
        return _unknown_key(place, first["input"], start)
    if kind in _BOUNDS:
        return f"{_full_name(place)}: {_shown(first['input'])}: want {_limit(first, place.field)}"
    if kind == "finite_number":
        return f"{_full_name(place)}: {_shown(first['input'])}: want a finite number"
    if kind == "too_short":
        return f"{place.name}: {_shown(first['input'])}: want at least one"
    if kind == "refused":
        return f"{_full_name(place)}: {_shown(first['input'])}: {first['msg']}"
    if kind == "value_error":
        between = "." if place.field is None else ": "
        return f"{place.name}{between}{first['ctx']['error']}"
    value = first["input"] if place.field is None else _at(values, place.name)
    return f"{start}wrong type for key {place.name!r}: {_shown(value, exact=True)} should be {_kind(place.field)}"


def _unknown_kind(place: Place, values: Any) -> str:
    key = discriminator_of(place.choices[0])
    name = f"{place.name}.{key}" if place.name else key
    return f"{name}: {_shown(values[key])}: choose one of {', '.join(map(tag, place.choices))}"


def _unknown_key(place: Place, value: Any, start: str) -> str:
    name = _extra_name(place)
    for leaf in _leaves(name, value):
        choice = other_kind(leaf, place.kinds)
        if choice is not None:
            key, wanted = choice
            return f"{leaf}: goes with {key}: {wanted} (here it is {place.kinds.get(key, 'another')})"
    name = next(_leaves(name, value))
    if name in RENAMED:
        return f"{start}unknown key {name!r}; it is now {RENAMED[name]!r}"
    return f"{start}unknown key {name!r}{_nearest(name, place.kinds)}"


def _extra_name(place: Place) -> str:
    return ".".join([*filter(None, [place.name]), str(place.rest[0])])


def _rank(mistake: ErrorDetails) -> int:
    """Return the place of a key in `RENAMED`; that after the last one for any other mistake."""
    name = _extra_name(place_of(mistake["loc"])) if mistake["type"] == "extra_forbidden" else ""
    return [*RENAMED, name].index(name)


def _leaves(name: str, value: Any) -> Iterator[str]:
    """Yield the names of the settings in a section, or the name of the one that it is."""
    if isinstance(value, dict) and value and name not in KEYS:
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    else:
        yield name


def _nearest(name: str, kinds: Kinds) -> str:
    for names in ([key for key in KEYS if is_known(key, kinds)], list(KEYS)):
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        if near:
            return f"; did you mean {near[0]!r}?"
    return ""


def _full_name(place: Place) -> str:
    return ".".join([place.name, *(str(part) for part in place.rest if isinstance(part, str) and part != "[key]")])


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _shown(value: Any, *, exact: bool = False) -> str:
    """Return a value as it is written in an error, on one line and no longer than a line."""
    text = f"{value:g}" if isinstance(value, float) and not exact else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _kind(field: FieldInfo | None) -> str:
    """Return what the value of a setting should be, in words."""
    if field is None:
        return "keys and values"
    annotation: Any = field.annotation
    if get_origin(annotation) is dict:
        whole = "whole " if _base(get_args(annotation)[1]) is int else ""
        return f"sizes and {whole}numbers, as {'{32: 64, 64: 16}' if whole else '{32: 0.2, 48x64: 0.8}'}"
    return _KINDS_OF_VALUES.get(annotation, "a list of whole numbers")


def _base(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_args(annotation) else annotation


def _limit(error: ErrorDetails, field: FieldInfo | None) -> str:
    """Return the range of a setting in words, from its limits; of an item in it, the limit that it broke."""
    bounds = dict(error["ctx"]) if "ctx" in error else {}
    for limit in _limits(() if field is None else field.metadata):
        bounds |= limit
    low = f"{bounds['gt']:g}" if "gt" in bounds else f"{bounds['ge']:g}" if "ge" in bounds else ""
    if "lt" in bounds:
        return (
            f"more than {low}, less than {bounds['lt']:g}"
            if "gt" in bounds
            else (f"{low} up to, not including, {bounds['lt']:g}")
        )
    if "le" in bounds and (bounds["le"] < LARGEST or error["type"] == "less_than_equal"):
        high = f"{bounds['le']:g}" if bounds["le"] < LARGEST else str(bounds["le"])
        if not low:
            return f"at most {high}"
        return f"more than {low}, at most {high}" if "gt" in bounds else f"{low} to {high}"
    return f"more than {low}" if "gt" in bounds else f"at least {low}"


def _limits(metadata: Iterable[Any]) -> Iterable[dict[str, float]]:
    for item in metadata:
        for kind, name in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt")):
            if isinstance(item, kind):
                yield {name: getattr(item, name)}

"""All keys of the configuration as `section.name`, and the kinds that each goes with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import isclass
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from infdiff.config.settings import AnyConfig
from infdiff.schema import Section

# What tells the kinds of a section apart.
_DISCRIMINATORS = ("method", "kind")

Kinds = dict[str, str]


class Key(NamedTuple):
    """A setting of one kind of configuration. kinds: what must be chosen for it to be there."""

    name: str
    field: FieldInfo
    kinds: Kinds


class Place(NamedTuple):
    """Location of an error in the configuration.

    rest: what follows the setting's name, as the size in a mapping. kinds: those chosen on the way. field: None where
    the place is a section, or there is no such key. choices: the kinds of section that may be there.
    """

    name: str
    rest: tuple[int | str, ...]
    kinds: Kinds
    field: FieldInfo | None
    choices: tuple[type[Section], ...]


def sections_of(annotation: Any) -> tuple[type[Section], ...]:
    """Return the section classes that a value of a type may have: several for a union of kinds, none for a setting."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isclass(annotation) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(section for part in get_args(annotation) for section in sections_of(part))


def keys_of(annotation: Any = AnyConfig, prefix: str = "", kinds: Mapping[str, str] | None = None) -> Iterator[Key]:
    """Yield the settings of all kinds."""
    choices = sections_of(annotation)
    for section in choices:
        own = dict(kinds or {})
        if len(choices) > 1:
            own[prefix + discriminator_of(section)] = tag(section)
        for name, field in section.model_fields.items():
            if sections_of(field.annotation):
                yield from keys_of(field.annotation, f"{prefix}{name}.", own)
            else:
                yield Key(prefix + name, field, own)


def discriminator_of(section: type[Section]) -> str:
    """Return the name of the setting that tells a kind of section from the others."""
    return next(name for name in _DISCRIMINATORS if name in section.model_fields)


def tag(section: type[Section]) -> str:
    """Return the value of that setting."""
    return str(section.model_fields[discriminator_of(section)].default)


KEYS: dict[str, list[Key]] = {}
for _key in keys_of():
    KEYS.setdefault(_key.name, []).append(_key)


def kinds_of(values: Any) -> Kinds:
    """Return the kinds that values of a configuration choose, those of the defaults included."""
    kinds: Kinds = {}
    _find_kinds(AnyConfig, values, "", kinds)
    return kinds


def _find_kinds(annotation: Any, values: Any, prefix: str, kinds: Kinds) -> None:
    choices, values = sections_of(annotation), values if isinstance(values, dict) else {}
    chosen = choices[0]
    if len(choices) > 1:
        name = discriminator_of(chosen)
        kinds[prefix + name] = str(values.get(name, tag(chosen)))
        chosen = next((choice for choice in choices if tag(choice) == kinds[prefix + name]), chosen)
    for name, field in chosen.model_fields.items():
        if sections_of(field.annotation):
            _find_kinds(field.annotation, values.get(name), f"{prefix}{name}.", kinds)


def is_known(name: str, kinds: Mapping[str, str]) -> bool:
    """Return True if a setting of this name exists where these kinds are chosen."""
    return any(key.kinds.items() <= kinds.items() for key in KEYS.get(name, ()))


def other_kind(name: str, kinds: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the choice that the setting of another kind needs, as ("method", "edm"); None where no kind has it."""
    missing = [dict(key.kinds.items() - kinds.items()) for key in KEYS.get(name, ())]
    if not missing:
        return None
    return next(iter(min(missing, key=len).items()))


def place_of(location: tuple[int | str, ...]) -> Place:
    """Return the place of a pydantic error, whose location also names the kinds on the way."""
    annotation: Any = AnyConfig
    names: list[str] = []
    kinds: Kinds = {}
    field, rest = None, list(location)
    while rest:
        choices = sections_of(annotation)
        if not choices:
            break
        if len(choices) > 1:
            chosen = next(choice for choice in choices if tag(choice) == rest[0])
            kinds[".".join([*names, discriminator_of(chosen)])] = tag(chosen)
            annotation, field = chosen, None
        else:
            field = choices[0].model_fields.get(str(rest[0]))
            if field is None:
                break
            names.append(str(rest[0]))
            annotation = field.annotation
        rest.pop(0)
    choices = sections_of(annotation)
    return Place(".".join(names), tuple(rest), kinds, None if choices else field, choices)

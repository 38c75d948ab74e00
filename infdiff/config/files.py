"""Configurations as YAML files and `key.path=value` overrides: read, strictly; changed; written; compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from infdiff.config.earlier import from_earlier_layout, has_earlier_keys, renamed
from infdiff.config.keys import KEYS, Kinds, is_known, kinds_of
from infdiff.config.messages import explain
from infdiff.config.settings import AnyConfig, Config, EDMConfig, InfinityDiffConfig
from infdiff.errors import UserError
from infdiff.schema import Section
from infdiff.shipped import CONFIG_FOLDER, find_config

_ADAPTER: TypeAdapter[InfinityDiffConfig | EDMConfig] = TypeAdapter(AnyConfig)
_MOST_BYTES = 1 << 20
# Sections lie in sections, and mappings of sizes in those: nothing is deeper.
_DEEPEST = 6


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, and a key that is there twice an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = Counter(str(loader.construct_object(key, deep=True)) for key, _ in node.value)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is there twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the defaults, then the YAML file, then `key.path=value` overrides.

    Where an override chooses another kind, the file's settings of the kind that it replaces are left out. Raises
    UserError naming the file and the key that is unknown, has a value of the wrong type, or goes with another kind.
    """
    path = find_config(path)
    values = _read(path)
    if has_earlier_keys(values):
        values = from_earlier_layout(values)
    config = _validate(values, f"config {path}")
    if not overrides:
        return config
    given = [_present(*_parse(override)) for override in overrides]
    trial = _with(values, given)
    kinds = kinds_of(trial)
    if kinds != kinds_of(values):
        trial = _with(_only_known(values, kinds), given)
    return _validate(trial, "command line")


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return the configuration with other values of some settings, as {"train.batch_size": 8}.

    Raises UserError naming the setting that cannot have its value.
    """
    return _validate(_with(config.model_dump(), [(key.split("."), value) for key, value in settings.items()]), "")


def save_config(config: Config, path: Path) -> None:
    """Write every setting, defaults included."""
    text = yaml.safe_dump(_plain(config.model_dump()), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def config_differences(a: Config, b: Config, ignore: Sequence[str] = ()) -> list[str]:
    """Return "key: value in a -> value in b" for each setting of both that differs.

    Keys that start with one of `ignore` are left out.
    """
    left, right = flatten(a), flatten(b)
    return [
        f"{key}: {left[key]} -> {right[key]}"
        for key in left
        if key in right and left[key] != right[key] and not any(key == i or key.startswith(f"{i}.") for i in ignore)
    ]


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Return the value of every setting by its key."""
    out: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        out |= flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return out


def _validate(values: dict[str, Any], where: str) -> Config:
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise UserError(explain(error, values, where)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.yaml")))
        hint = f" (in configs/: {known})" if known else ""
        raise UserError(f"cannot read config {path}: {error.strerror}{hint}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"config {path} is larger than a configuration can be")
    try:
        values = _with_text_keys(yaml.load(content.decode("utf-8-sig"), _Loader))
    except UnicodeDecodeError as error:
        raise UserError(f"config {path} is not UTF-8 text") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"config {path} is nested too deeply") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"config {path} must hold keys and values")
    return values


def _parse(override: str) -> tuple[list[str], Any]:
    """Return the path of the key, and the value, of `key.path=value`."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is not an override: write key.path=value, as in train.batch_size=16")
    try:
        return key.split("."), "" if not text.strip() else _with_text_keys(yaml.load(text, _Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {key}={text[:100]!r}: {reason}") from error


def _present(path: list[str], value: Any) -> tuple[list[str], Any]:
    """Return the path of a setting under its present name, and its value there."""
    key, value = renamed(".".join(path), value)
    return key.split("."), value


def _with_text_keys(values: Any, depth: int = 0) -> Any:
    """Return the values with keys of text: YAML reads 32 as a number, and sizes such as 32x48 are text."""
    if depth > _DEEPEST:
        raise RecursionError("nested too deeply")
    if isinstance(values, dict):
        return {str(key): _with_text_keys(value, depth + 1) for key, value in values.items()}
    if isinstance(values, list):
        return [_with_text_keys(value, depth + 1) for value in values]
    return values


def _with(values: dict[str, Any], settings: Sequence[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return the values with others in place: a setting is replaced, a section is merged, a size in a mapping added."""
    values = deepcopy(values)
    for path, value in settings:
        _put(values, path, value, "")
    return values


def _put(values: dict[str, Any], path: Sequence[str], value: Any, prefix: str) -> None:
    name, *rest = path
    key = prefix + name
    if not rest and not (isinstance(value, dict) and key not in KEYS):
        values[name] = value
        return
    if not isinstance(values.get(name), dict):
        if name in values and values[name] is not None:
            values[name] = value if not rest else values[name]
            return
        values[name] = {}
    if rest:
        _put(values[name], rest, value, f"{key}.")
    else:
        for inner, item in value.items():
            _put(values[name], [inner], item, f"{key}.")


def _only_known(values: dict[str, Any], kinds: Kinds, prefix: str = "") -> dict[str, Any]:
    """Return the settings of those that these kinds have. Unknown keys stay, to be named."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if key in KEYS:
            if is_known(key, kinds):
                out[name] = value
        elif isinstance(value, dict):
            inner = _only_known(value, kinds, f"{key}.")
            if inner:
                out[name] = inner
        else:
            out[name] = value
    return out


def _plain(value: Any) -> Any:
    """Return tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value

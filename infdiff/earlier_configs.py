"""Configurations that runs of the earlier layout hold: every setting of both kinds, told apart by `model.kind`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infdiff.config_errors import RENAMED
from infdiff.config_keys import is_known, kinds_of

_SECTIONS = {"name", "seed", "data", "model", "diffusion", "edm", "train", "finetune", "latent", "sample"}
_METHODS = {"points": "infinity_diff", "grid": "edm"}


def is_of_earlier_layout(values: dict[str, Any]) -> bool:
    """Return True for the values that a run of the earlier layout keeps: all sections are there, and model.kind."""
    model = values.get("model")
    return values.keys() == _SECTIONS and isinstance(model, dict) and model.get("kind") in _METHODS


def from_earlier_layout(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values under their present names.

    Settings of the other kind, which had no effect, are left out.
    """
    settings = {RENAMED.get(key, key): value for key, value in _settings(values)}
    settings["method"] = _METHODS[settings["method"]]
    if settings.get("edm.noise") == "mollified":
        settings["edm.mollifier_sigma"] = settings["diffusion.sigma"]
    kinds = kinds_of(_nested(settings))
    return _nested({key: value for key, value in settings.items() if is_known(key, kinds)})


def _settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and name not in ("data.resolutions", "data.batch_sizes"):
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        inner = out
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return out

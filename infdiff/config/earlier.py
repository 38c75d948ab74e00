"""Keys of the earlier layout, which held the settings of both methods and told them apart by `model.kind`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infdiff.config.keys import KEYS, is_known, kinds_of
from infdiff.config.messages import RENAMED

_CHOICES = ("method", "model.grid.kind")
_MAPPINGS = ("data.resolutions", "data.batch_sizes", "data.valid_pixels", "train.subsample")
_METHODS = {"points": "infinity_diff", "grid": "edm"}


def has_earlier_keys(values: dict[str, Any]) -> bool:
    """Return True for values of which at least one has a name that has changed."""
    return any(key in RENAMED for key, _ in _settings(values))


def renamed(key: str, value: Any) -> tuple[str, Any]:
    """Return the present name of a setting, and its value under that name."""
    if key == "model.kind" and isinstance(value, str):
        value = _METHODS.get(value, value)
    return RENAMED.get(key, key), value


def from_earlier_layout(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values under their present names.

    Settings of the other kind, which had no effect, are left out. Unknown ones stay, to be named.
    """
    given = dict(_settings(values))
    # Where a file has both names, the earlier one stays and is named as unknown.
    settings = dict((key, value) if RENAMED.get(key) in given else renamed(key, value) for key, value in given.items())
    if settings.get("edm.noise") == "mollified" and "diffusion.sigma" in settings:
        settings.setdefault("edm.mollifier_sigma", settings["diffusion.sigma"])
    kinds = kinds_of(_nested(settings))
    return _nested({key: value for key, value in settings.items() if is_known(key, kinds) or not _was_setting(key)})


def _was_setting(key: str) -> bool:
    """Return True for a setting of either kind, and for one of `train` that latent.train held without reading it."""
    if key in _CHOICES:
        return False
    return key in KEYS or (key.startswith("latent.") and renamed(key.removeprefix("latent."), None)[0] in KEYS)


def _settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and name not in _MAPPINGS:
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

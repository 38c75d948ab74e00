"""Folders that a checkout keeps next to the package and a wheel inside it: configs, cuda."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """The folder of this name, which may be missing in a broken installation."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


CONFIG_FOLDER = shipped_folder("configs")


def find_config(path: str | Path) -> Path:
    """Return the file at a path, or else the shipped configuration of that name: "demo", "configs/demo.yaml".

    A path that names neither is returned as it is.
    """
    path = Path(path)
    shipped = CONFIG_FOLDER / f"{path.name.removesuffix('.yaml')}.yaml"
    named = str(path.parent) in (".", CONFIG_FOLDER.name)
    return shipped if named and not path.is_file() and shipped.is_file() else path

"""Disk cache of descriptions of real images, one for each content, size and feature network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from infdiff.errors import UserError
from infdiff.files import cache_folder, make_folder
from infdiff.metrics.compare import Description
from infdiff.metrics.distances import Gaussian
from infdiff.tensors import DamagedFileError, read_tensors, save_tensors


def cached_description(
    key: tuple[object, ...], make: Callable[[], Description], folder: Path | None = None
) -> Description:
    """Return the description of a key from `folder` (default: features/ in the package's cache), or make and cache it.

    The key holds everything that the description depends on. A damaged file is replaced; a folder that cannot be
    written to is ignored.
    """
    folder = cache_folder() / "features" if folder is None else folder
    path = folder / f"{hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()}.safetensors"
    try:
        t, _ = read_tensors(path, ("features", "spectra", "mean", "root"))
        return Description(t["features"], t["spectra"], Gaussian(t["mean"], t["root"]))
    except (OSError, DamagedFileError):
        made = make()
    gaussian = made.gaussian
    tensors = {"features": made.features, "spectra": made.spectra, "mean": gaussian.mean, "root": gaussian.root}
    with suppress(UserError):
        save_tensors(make_folder(folder) / path.name, tensors)
    return made

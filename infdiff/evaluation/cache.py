"""Descriptions of real images, kept on the disk: made once for a content, a size and a feature network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from infdiff.errors import UserError
from infdiff.files import make_folder, save_tensors
from infdiff.metrics.compare import Described
from infdiff.metrics.distances import Gaussian
from infdiff.ops.gpu.nvrtc import cache_folder


def kept_description(key: tuple[object, ...], make: Callable[[], Described], folder: Path | None = None) -> Described:
    """The description of a key, from `folder` (default: features/ in the package's cache) or newly made and kept.

    The key says everything that the description depends on. A damaged file is made anew; a folder that cannot be
    written to is passed over.
    """
    folder = cache_folder() / "features" if folder is None else folder
    name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    path = folder / f"{name}.safetensors"
    try:
        t = safetensors.torch.load_file(path)
        return Described(t["features"], t["spectra"], Gaussian(t["mean"], t["root"], len(t["features"])))
    except (OSError, SafetensorError, KeyError):
        made = make()
    gaussian = made.gaussian
    tensors = {"features": made.features, "spectra": made.spectra, "mean": gaussian.mean, "root": gaussian.root}
    with suppress(UserError):
        save_tensors(make_folder(folder) / path.name, tensors)
    return made

"""Folders and zips of images as training data: prepared once, into the cache, at the size that is needed.

A preparation is named after the files it was made from, so that it is used again only while they are the same. A run
keeps its path: later calls find the images that the run was trained on, or are told that they are gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from infdiff.config.files import changed
from infdiff.config.settings import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.prepare_fields import FieldOptions, fields_of, prepare_fields, without_arrays
from infdiff.data.shards import shard_files
from infdiff.data.sources import SOURCES, FolderSource, Source, ZipSource, open_source
from infdiff.data.store import ImageStore
from infdiff.files import cache_folder
from infdiff.methods.sizes import resolutions

# Below this, starting a process takes longer than the images it would prepare.
_IMAGES_A_WORKER = 64

Say = Callable[[str], object]


def with_prepared_data(config: Config, say: Say) -> Config:
    """Return the configuration with the LMDB of prepared images in place of each folder or zip.

    say: given a line about each. Raises UserError when no image can be read.
    """
    size = enclosing(resolutions(config))
    paths = {"data.path": config.data.path, "data.validation_path": config.data.validation_path}
    found = {key: str(prepared(path, size, say)) for key, path in paths.items() if path and holds_images(path)}
    return changed(config, found) if found else config


def enclosing(sizes: Iterable[Size]) -> Size:
    """The smallest size that is at least as high and as wide as each of them."""
    heights, widths = zip(*sizes, strict=True)
    return max(heights), max(widths)


def prepared(path: str | Path, size: Size | None, say: Say) -> Path:
    """Return the LMDB of a folder or zip of images at a size, or at native sizes; any other path as it is."""
    if not holds_images(path):
        return Path(path)
    source, recipe = open_source(path), Recipe(size=size)
    place = cache_folder().absolute() / "data" / f"{Path(path).stem}-{_fingerprint(source, recipe)}.lmdb"
    pixels = "native size" if size is None else f"{format_size(size)} pixels"
    if place.exists():
        store, before = ImageStore(place), "prepared before, "
    else:
        workers = min(os.cpu_count() or 1, len(source.names) // _IMAGES_A_WORKER)
        for name, reason in _prepare(source, place, recipe, workers):
            say(f"left out: {name}: {reason}")
        store, before = ImageStore(place), ""
    count = f"{len(store)} images from {len(source.names)} files"
    say(f"{path}: {count}, {before}at {pixels} in {place} (prepare large sets with prepare-data)")
    return place


def _prepare(source: Source, place: Path, recipe: Recipe, workers: int) -> list[tuple[str, str]]:
    """Prepare images, or fields with what is guessed of them; return the files left out, with reasons."""
    if fields_of(source) is not None:
        return prepare_fields(source, place, recipe, FieldOptions(), workers=workers).left_out
    return prepare(without_arrays(source), place, recipe, workers=workers).left_out


def holds_images(path: str | Path) -> bool:
    """Return True for a folder or zip of images, False for an LMDB, for a folder of shards and for nothing."""
    if shard_files(path):
        return False
    kind = next((kind for kind in SOURCES if kind.accepts(Path(path))), None)
    return kind in (FolderSource, ZipSource)


def _fingerprint(source: Source, recipe: Recipe) -> str:
    """A hash of the recipe and of the files' names, sizes and times."""
    folder = Path(source.path).resolve()
    paths = [folder / name for name in source.names] if isinstance(source, FolderSource) else [folder]
    status = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = repr((str(folder), source.names, status, recipe))
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

"""Prepare an image store from any source: decode, convert, crop, resize, encode, write. Complete or not at all."""

from __future__ import annotations

import io
import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import numpy as np
from PIL import Image
from tqdm import tqdm

from infdiff.coordinates import Size, format_size
from infdiff.data.label_files import SourceLabels
from infdiff.data.lmdb_files import put_checked
from infdiff.data.sources import Source
from infdiff.data.store import FORMATS, UNREADABLE, Header, encode_image, entry_key, header_entry, label_entry
from infdiff.data.tiles import TILE
from infdiff.errors import OptionError, UserError
from infdiff.files import clean_partials, make_folder, whole_file
from infdiff.images.transforms import RESIZE_FILTER, crop_to_aspect, random_crop, resize, to_rgb
from infdiff.seeding import derive_seed

_BATCH = 64
# Images that a process is given at a time, and times that are given out beforehand.
_CHUNK, _AHEAD = 4, 8
# All crops of an image are in memory at once.
_MOST_CROPS = 10_000
_SMALLEST_TILE, _LARGEST_TILE = 8, 4096


@dataclass(frozen=True)
class Recipe:
    """Treatment of each image. size None keeps native sizes; crops 0 is one centre crop."""

    size: Size | None = None
    crops: int = 0
    min_crop: float = 0.5
    format: str = "png"
    min_side: int = 8
    max_pixels: int = 200_000_000
    seed: int = 0
    # Not in the name of images prepared before, which have no tiles.
    tile: int = field(default=0, repr=False)  # side of the tiles, with format tiles alone; 0: 64

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise OptionError("format", self.format, f"choose one of {', '.join(FORMATS)}")
        if not 0 <= self.crops <= _MOST_CROPS:
            raise OptionError("crops", self.crops, f"want 0 (one centre crop) to {_MOST_CROPS}")
        if self.size is not None and self.size[0] * self.size[1] > self.max_pixels:
            raise OptionError("size", format_size(self.size), f"that is over max_pixels, {self.max_pixels}")
        for name, least in (("min_side", 1), ("max_pixels", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise OptionError(name, getattr(self, name), f"want at least {least}")
        if self.tile and self.format != "tiles":
            raise OptionError("tile", self.tile, "goes with --format tiles")
        if self.tile and not _SMALLEST_TILE <= self.tile <= _LARGEST_TILE:
            raise OptionError("tile", self.tile, f"want {_SMALLEST_TILE} to {_LARGEST_TILE} pixels")
        if self.crops and self.size is None:
            raise OptionError("crops", self.crops, "needs a size: images of native size are not cropped")
        if not 0 < self.min_crop <= 1:
            raise OptionError("min_crop", self.min_crop, "want a part of the image, above 0 and at most 1")

    @property
    def tile_side(self) -> int:
        """Side of the tiles; 0 for other formats."""
        return (self.tile or TILE) if self.format == "tiles" else 0


@dataclass
class Result:
    """Number of images written, and the files left out, with reasons."""

    written: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def prepare(
    source: Source,
    out: str | Path,
    recipe: Recipe,
    *,
    labels: SourceLabels | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Result:
    """Write the store to a partial file and rename it: an existing file at `out` stays until the new one is complete.

    labels: of each image. Raises UserError, leaving nothing behind, when no image could be read or the disk is full.
    """
    result, used = Result(), []
    with new_store(out) as writer:
        images = in_processes(partial(_convert, source, recipe), len(source.names), workers)
        for name, entries, reason in tqdm(
            images, total=len(source.names), unit="image", disable=None if progress else True
        ):
            if reason:
                result.left_out.append((name, reason))
            for entry in entries:
                writer.put(entry_key(result.written), entry)
                result.written += 1
                used.append(name)
        if not result.written:
            name, reason = result.left_out[0]
            raise UserError(f"none of the {len(source.names)} images in {source.path} is usable: {name}: {reason}")
        header = Header(
            result.written,
            recipe.size,
            recipe.format,
            RESIZE_FILTER,
            max(1, recipe.crops),
            source.path,
            tile=recipe.tile_side,
            labels=writer.put_labels(labels, used),
        )
        writer.put(*header_entry(header))
    return result


@contextmanager
def new_store(out: str | Path) -> Iterator[StoreWriter]:
    """Yield what writes a store; it appears at `out` when the block ends, complete, or not at all.

    Raises UserError for a folder, and for a file that cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file, such as data.lmdb")
    try:
        clean_partials(make_folder(out.parent), out.name)
        with whole_file(out) as partial_file:
            writer = StoreWriter(partial_file)
            yield writer
            writer.close()
    except (OSError, lmdb.Error) as error:
        raise UserError(f"cannot write {out}: {error}") from error


class StoreWriter:
    """Writes entries in batches into an LMDB whose map grows as it fills."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.map_size = 1 << 26
        self.environment = lmdb.open(str(path), subdir=False, map_size=self.map_size, lock=False, sync=False)
        self.pending: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.pending.append((key, value))
        if len(self.pending) >= _BATCH:
            self._commit()

    def put_labels(self, labels: SourceLabels | None, used: Sequence[str]) -> dict[str, Any] | None:
        """Write the label of each entry, by the name of its source image; return what labels mean, for the header."""
        if labels is None:
            return None
        for number, name in enumerate(used):
            self.put(*label_entry(number, labels.values[name]))
        return labels.description(used).record()

    def close(self) -> None:
        self._commit()
        self.environment.sync(True)
        self.environment.close()

    def _commit(self) -> None:
        size = sum(len(value) + 8192 for _, value in self.pending)
        if shutil.disk_usage(self.folder).free < size:
            raise OSError("no space left on the device")
        while True:
            try:
                with self.environment.begin(write=True) as transaction:
                    for key, value in self.pending:
                        put_checked(transaction, key, value)
                break
            except lmdb.MapFullError:
                self.map_size *= 2
                self.environment.set_mapsize(self.map_size)
        self.pending = []


Converted = tuple[str, list[bytes], str]
_Made = TypeVar("_Made")


def in_processes(convert: Callable[[int], _Made], count: int, workers: int) -> Iterator[_Made]:
    """Yield convert(i) for i in 0..count-1, in this order, made by worker processes, or by none.

    Raises UserError when a process was killed.
    """
    if workers <= 1:
        yield from map(convert, range(count))
        return
    # Fresh processes: a fork would copy locks held by the parent's threads. A Pool would wait for ever for the work of
    # a process that was killed.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        running: deque[Future[list[_Made]]] = deque()
        for start in range(0, count, _CHUNK):
            running.append(pool.submit(_all_of, convert, range(start, min(count, start + _CHUNK))))
            if len(running) > _AHEAD * workers:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    except BrokenProcessPool as error:
        raise UserError("a process that prepares images was killed, perhaps for its memory: try --workers 1") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _all_of(convert: Callable[[int], _Made], numbers: Sequence[int]) -> list[_Made]:
    return [convert(number) for number in numbers]


def _convert(source: Source, recipe: Recipe, number: int) -> Converted:
    """The name of image `number` of a source, its encoded pieces, and the reason for leaving it out."""
    name = source.names[number]
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before any pixel is decoded
    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            width, height = image.size
            if width * height > recipe.max_pixels:
                return name, [], f"{width}x{height} pixels is over max_pixels, {recipe.max_pixels}"
            if min(width, height) < recipe.min_side:
                return name, [], f"{width}x{height} pixels is under min_side, {recipe.min_side}"
            rgb = to_rgb(image)
    except (*UNREADABLE, MemoryError) as error:
        return name, [], " ".join(str(error).split()) or type(error).__name__
    return name, [encode_image(piece, recipe.format, recipe.tile_side) for piece in _pieces(rgb, recipe, number)], ""


def _pieces(image: Image.Image, recipe: Recipe, number: int) -> Iterator[Image.Image]:
    if recipe.size is None:
        yield image
    elif not recipe.crops:
        yield resize(crop_to_aspect(image, recipe.size), recipe.size)
    else:
        random = np.random.default_rng(derive_seed(recipe.seed, "crop", number))
        for _ in range(recipe.crops):
            yield resize(random_crop(image, recipe.size, random, recipe.min_crop), recipe.size)

"""Prepare an image store from any source: decode, convert, crop, resize, encode, write. Complete or not at all."""

from __future__ import annotations

import io
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image
from tqdm import tqdm

from infdiff.coordinates import Size
from infdiff.data.sources import Source
from infdiff.data.store import FORMATS, Header, encode_image, entry_key, header_entry
from infdiff.errors import OptionError, UserError
from infdiff.files import make_folder, whole_file
from infdiff.images.transforms import RESIZE_FILTER, crop_to_aspect, random_crop, resize, to_rgb
from infdiff.seeding import derive_seed

_BATCH = 64


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

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise OptionError("format", self.format, f"choose one of {', '.join(FORMATS)}")
        if self.crops < 0:
            raise OptionError("crops", self.crops, "want 0 (one centre crop) or more")
        if self.crops and self.size is None:
            raise OptionError("crops", self.crops, "needs a size: images of native size are not cropped")
        if not 0 < self.min_crop <= 1:
            raise OptionError("min_crop", self.min_crop, "want a part of the image, above 0 and at most 1")


@dataclass
class Result:
    """Number of images written, and the files left out, with reasons."""

    written: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def prepare(source: Source, out: str | Path, recipe: Recipe, *, workers: int = 0, progress: bool = True) -> Result:
    """Write the store to a partial file and rename it: an existing file at `out` stays until the new one is complete.

    Raises UserError, leaving nothing behind, when no image could be read or the disk is full.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file, such as data.lmdb")
    result = Result()
    try:
        make_folder(out.parent)
        with whole_file(out) as partial:
            writer = StoreWriter(partial)
            images = _converted(source, recipe, workers)
            for name, entries, reason in tqdm(
                images, total=len(source.names), unit="image", disable=None if progress else True
            ):
                if reason:
                    result.left_out.append((name, reason))
                for entry in entries:
                    writer.put(entry_key(result.written), entry)
                    result.written += 1
            if not result.written:
                name, reason = result.left_out[0]
                raise UserError(f"none of the {len(source.names)} images in {source.path} is usable: {name}: {reason}")
            header = Header(
                result.written, recipe.size, recipe.format, RESIZE_FILTER, max(1, recipe.crops), source.path
            )
            writer.put(*header_entry(header))
            writer.close()
    except (OSError, lmdb.Error) as error:
        raise UserError(f"cannot write {out}: {error}") from error
    return result


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
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self.map_size *= 2
                self.environment.set_mapsize(self.map_size)
        self.pending = []


Converted = tuple[str, list[bytes], str]


def _converted(source: Source, recipe: Recipe, workers: int) -> Iterator[Converted]:
    """Yield (name, encoded images, reason for leaving it out) for each image, in the source's order."""
    convert = partial(_convert, source, recipe)
    jobs = list(enumerate(source.names))
    if workers <= 1:
        yield from map(convert, jobs)
        return
    # Fresh processes: a fork would copy locks held by the parent's threads.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(convert, jobs, chunksize=4)


def _convert(source: Source, recipe: Recipe, job: tuple[int, str]) -> Converted:
    number, name = job
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before any pixel is decoded
    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            width, height = image.size
            if width * height > recipe.max_pixels:
                return name, [], f"{width}x{height} pixels is over max_pixels, {recipe.max_pixels}"
            if min(width, height) < recipe.min_side:
                return name, [], f"{width}x{height} pixels is under min_side, {recipe.min_side}"
            rgb = to_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return name, [], " ".join(str(error).split()) or type(error).__name__
    return name, [encode_image(piece, recipe.format) for piece in _pieces(rgb, recipe, number)], ""


def _pieces(image: Image.Image, recipe: Recipe, number: int) -> Iterator[Image.Image]:
    if recipe.size is None:
        yield image
    elif not recipe.crops:
        yield resize(crop_to_aspect(image, recipe.size), recipe.size)
    else:
        random = np.random.default_rng(derive_seed(recipe.seed, "crop", number))
        for _ in range(recipe.crops):
            yield resize(random_crop(image, recipe.size, random, recipe.min_crop), recipe.size)

"""Prepare an image store from any source: decode, convert, crop, resize, encode, write. Complete or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from infdiff.coordinates import Size, format_size
from infdiff.data.label_files import SourceLabels
from infdiff.data.sources import Source
from infdiff.data.store import FORMATS, UNREADABLE, Header, encode_image
from infdiff.data.tiles import TILE
from infdiff.data.writers import new_store
from infdiff.errors import OptionError, UserError
from infdiff.images.transforms import RESIZE_FILTER, crop_to_aspect, random_crop, resize, to_rgb
from infdiff.seeding import derive_seed

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
    shards: int = 0,
    progress: bool = True,
) -> Result:
    """Write the store to a partial file and rename it: an existing file at `out` stays until the new one is complete.

    labels: of each image. shards: files of a folder to write instead. Raises UserError, leaving nothing behind, when no
    image could be read or the disk is full.
    """
    result, used, count = Result(), [], len(source.names)
    with new_store(out, shards, count) as writer:
        images = writer.write(partial(_convert, source, recipe), count, workers)
        for image in tqdm(images, total=count, unit="image", disable=None if progress else True):
            if image.reason:
                result.left_out.append((image.name, image.reason))
            used += [image.name] * len(image.entries)
        result.written = len(used)
        if not used:
            name, reason = result.left_out[0]
            raise UserError(f"none of the {count} images in {source.path} is usable: {name}: {reason}")
        crops = max(1, recipe.crops)
        header = Header(
            result.written, recipe.size, recipe.format, RESIZE_FILTER, crops, source.path, tile=recipe.tile_side
        )
        writer.finish(header, labels, used)
    return result


@dataclass(frozen=True)
class Converted:
    """The encoded pieces of an image, by its name, and the reason for leaving it out."""

    name: str
    entries: list[bytes] = field(default_factory=list)
    reason: str = ""


def _convert(source: Source, recipe: Recipe, number: int) -> Converted:
    """Image `number` of a source."""
    name = source.names[number]
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before any pixel is decoded
    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            width, height = image.size
            if width * height > recipe.max_pixels:
                return Converted(name, reason=f"{width}x{height} pixels is over max_pixels, {recipe.max_pixels}")
            if min(width, height) < recipe.min_side:
                return Converted(name, reason=f"{width}x{height} pixels is under min_side, {recipe.min_side}")
            rgb = to_rgb(image)
    except (*UNREADABLE, MemoryError) as error:
        return Converted(name, reason=" ".join(str(error).split()) or type(error).__name__)
    pieces = _pieces(rgb, recipe, number)
    return Converted(name, [encode_image(piece, recipe.format, recipe.tile_side) for piece in pieces])


def _pieces(image: Image.Image, recipe: Recipe, number: int) -> Iterator[Image.Image]:
    if recipe.size is None:
        yield image
    elif not recipe.crops:
        yield resize(crop_to_aspect(image, recipe.size), recipe.size)
    else:
        random = np.random.default_rng(derive_seed(recipe.seed, "crop", number))
        for _ in range(recipe.crops):
            yield resize(random_crop(image, recipe.size, random, recipe.min_crop), recipe.size)

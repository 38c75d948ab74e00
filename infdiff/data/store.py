"""The image store: encoded images and a header that describes them, in one LMDB file or in a folder of shards."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.data.fields import FIELD_FORMAT, FieldDescription, decode_field, field_at
from infdiff.data.labels import LabelDescription, Value, decode_label, encode_label
from infdiff.data.lmdb_files import count_entries, read_checked, view_value
from infdiff.data.shards import shard_files
from infdiff.data.tiles import TILE, TiledImage, encode_tiles
from infdiff.errors import UserError, first_line
from infdiff.images.transforms import crop_to_aspect, resize, to_rgb

_WRITERS: dict[str, Callable[[Image.Image, io.BytesIO], None]] = {
    "png": lambda image, file: image.save(file, "PNG"),
    "webp": lambda image, file: image.save(file, "WEBP", lossless=True),
    "jpeg": lambda image, file: image.save(file, "JPEG", quality=95, subsampling=0),
    "raw": lambda image, file: np.save(file, np.asarray(image), allow_pickle=False),
}
_TILES = "tiles"
FORMATS = (*_WRITERS, _TILES)
# What Pillow and NumPy raise for bytes that are no image, or one that is too large to be harmless.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_HEADER_KEY = b"infdiff-header"
_KIND = "infdiff-images"
_VERSION = 1


@dataclass(frozen=True)
class Header:
    """Description of a store's content. size is (H, W), or None if images keep their native sizes."""

    count: int
    size: Size | None
    format: str
    resize_filter: str
    crops: int  # entries made from each source image, one after another; 1 for a centre crop
    source: str
    version: int = _VERSION
    tile: int = 0  # side of the tiles that images are stored in; 0: none
    field: dict[str, Any] | None = None  # the record of a `FieldDescription`; None for 8-bit RGB images
    labels: dict[str, Any] | None = None  # the record of a `LabelDescription`; None for images without labels
    shard: list[Any] | None = None  # of a shard: its number, that of all shards, and a name of the set; else None

    def encode(self) -> bytes:
        """Return the header as JSON."""
        values = asdict(self)
        if self.shard is None:  # earlier versions do not know it
            del values["shard"]
        return json.dumps({"kind": _KIND} | values).encode()

    @staticmethod
    def decode(value: bytes) -> Header:
        """Read the header from JSON. Raises ValueError, TypeError or KeyError for anything else."""
        values = json.loads(value)
        if values.pop("kind", None) != _KIND:
            raise ValueError("not an image store")
        values["size"] = tuple(values["size"]) if values["size"] else None
        header = Header(**values)
        header.check()
        return header

    def check(self) -> None:
        """Raise ValueError for a value that no store has."""
        # A shard all of whose images were left out is there, and empty.
        count = self.count or 1 if self.shard is not None else self.count
        numbers = {"count": count, "crops": self.crops, "height and width": self.size or (1, 1)}
        for name, value in numbers.items():
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is not int or not 1 <= number < 1 << 31:
                    raise ValueError(f"{name}: {value!r}")
        if self.size is not None and len(self.size) != 2:
            raise ValueError(f"size: {self.size!r}")
        if self.format not in (known := (*FORMATS, FIELD_FORMAT)):
            raise ValueError(f"format: {self.format!r}: known are {', '.join(known)}")
        if (self.field is None) == (self.format == FIELD_FORMAT):
            raise ValueError(
                f"format: {self.format!r} with" + ("out" if self.field is None else "") + " a field's description"
            )
        if self.version != _VERSION:
            raise ValueError(f"version {self.version!r}: this infdiff reads version {_VERSION}")


class ImageStore:
    """Read-only access to a store written by `prepare`: a file, or a folder of shards, which are one store.

    Raises UserError when the file is missing, is no LMDB, or is one of another kind; and for shards that are missing or
    not of one data set.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not Path(path).exists():
            raise UserError(f"no data set at {path}: make one with infdiff prepare-data SRC --out {path}")
        shards = shard_files(path)
        self.files = [str(file) for file in shards] or [self.path]
        headers = [_header_of(file) for file in self.files]
        if shards:
            _check_shards(self.files, headers)
        elif headers[0].shard is not None:
            number, count, _ = headers[0].shard
            raise UserError(f"{path} is shard {number} of {count}: name the folder that holds all of them")
        # Numbers of the first image of each file, and of all images.
        self.starts = [*itertools.accumulate((header.count for header in headers), initial=0)]
        self.header = replace(headers[0], count=self.starts[-1], shard=None)
        try:
            described = self.header.field
            self.field = None if described is None else FieldDescription.from_record(described)
            labels = self.header.labels
            self.labels = None if labels is None else LabelDescription.from_record(labels)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _no_data_set(path, error) from error

    def __len__(self) -> int:
        return self.header.count

    def holds(self, size: Size) -> bool:
        """Return True if some image is at least as large as `size` (H, W) along both axes."""
        if self.header.size is not None:
            return size[0] <= self.header.size[0] and size[1] <= self.header.size[1]
        sizes = (self.size_of(index) for index in range(len(self)))
        return any(size[0] <= height and size[1] <= width for height, width in sizes)

    def read(self, index: int) -> Image.Image:
        """Return image `index` in RGB. Raises UserError naming one that is damaged, and for a store of fields."""
        if self.field is not None:
            raise UserError(f"{self.path} holds fields of {self.field.channels} channels: this wants RGB images")
        value = self._value(index)
        try:
            return decode_image(value, self.header.format)
        except UNREADABLE as error:
            raise self._damaged(index, first_line(error)) from error

    def size_of(self, index: int) -> Size:
        """Return the size (H, W) of image `index`."""
        if self.header.size is not None:
            return self.header.size
        if self.field is not None:
            values, _ = self.read_field(index)
            return values.shape[1], values.shape[2]
        if self.header.tile:
            with self._tiled(index) as image:
                return image.size
        width, height = self.read(index).size
        return height, width

    def around(self, index: int, ids: Tensor, reach: int) -> Tensor:
        """Return image `index` as (H, W, 3) uint8, of which only pixels `ids` (L,) and those near them need be set.

        near: up to `reach` rows and columns away. Images in tiles are decoded there alone, others completely.
        """
        if not self.header.tile:
            return torch.from_numpy(np.array(self.read(index)))
        with self._tiled(index) as image:
            return torch.from_numpy(image.around(ids, reach))

    def smooth_copy(self, index: int) -> Tensor | None:
        """Return the smooth copy (h, w, 3) float16 that is stored with image `index`, or None if there is none."""
        if not self.header.tile:
            return None
        with self._tiled(index) as image:
            return image.smooth_copy()

    @contextmanager
    def _tiled(self, index: int) -> Iterator[TiledImage]:
        file, number = self._place(index)
        with view_value(file, entry_key(number)) as value:
            if value is None:
                raise self._damaged(index, "it is missing")
            yield TiledImage(value)

    def read_field(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (C, H, W) of field `index` in units, and its valid pixels (H, W); None: all."""
        return decode_field(self._value(index))

    def read_at(self, index: int, size: Size) -> Tensor:
        """Return image `index` cropped and resized: (3, H, W) uint8; of fields (C, H, W) float32, NaN where missing."""
        if self.field is not None:
            return field_at(self._value(index), self.field, size)
        return to_tensor(resize(crop_to_aspect(self.read(index), size), size))

    def label_rows(self, indices: Sequence[int]) -> Tensor:
        """Return the labels of some images, (N, dim) float32, as networks see them.

        Raises UserError for a store without labels, and naming one that is damaged.
        """
        if self.labels is None:
            raise UserError(f"the images of {self.path} have no labels: prepare them with --labels")
        rows = []
        for index in indices:
            try:
                rows.append(self.labels.row(decode_label(self._entry(_label_key, index))))
            except ValueError as error:
                raise self._damaged(index, f"its label: {first_line(error)}") from error
        return torch.stack(rows)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Return a hash of the bytes of some images, in their order."""
        digest = hashlib.blake2b(self.header.format.encode(), digest_size=16)
        for index in indices:
            digest.update(hashlib.blake2b(self._value(index)).digest())
        return digest.hexdigest()

    def _value(self, index: int) -> bytes:
        return self._entry(entry_key, index)

    def _place(self, index: int) -> tuple[str, int]:
        """The file that holds image `index`, and its number there."""
        shard = bisect_right(self.starts, index, hi=len(self.files)) - 1
        return self.files[shard], index - self.starts[shard]

    def _entry(self, key: Callable[[int], bytes], index: int) -> bytes:
        file, number = self._place(index)
        try:
            value = read_checked(file, key(number))
        except (lmdb.Error, OSError, ValueError) as error:
            raise self._damaged(index, first_line(error)) from error
        if value is None:
            raise self._damaged(index, "it is missing")
        return value

    def _damaged(self, index: int, reason: str) -> UserError:
        return UserError(f"{self.path} is damaged: image {index} of {len(self)}: {reason}: prepare it again")


def _header_of(path: str) -> Header:
    try:
        header = Header.decode(read_checked(path, _HEADER_KEY) or b"{}")
        if (entries := count_entries(path)) <= header.count:
            raise ValueError(f"it holds {entries} entries for {header.count} images")
    except (lmdb.Error, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_data_set(path, error) from error
    return header


def _no_data_set(path: str | Path, error: Exception) -> UserError:
    return UserError(f"{path} is not an infdiff data set ({error or 'no header'}): make one with infdiff prepare-data")


def _check_shards(files: Sequence[str], headers: Sequence[Header]) -> None:
    """Raise UserError unless all shards are of one data set, each with the number that its name says."""
    first = headers[0]
    for number, (file, header) in enumerate(zip(files, headers, strict=True)):
        if header.shard is None or header.shard[:2] != [number, len(files)]:
            raise UserError(f"{file} is not shard {number} of {len(files)}: prepare the data set again")
        if replace(header, count=0, shard=None) != replace(first, count=0, shard=None):
            raise UserError(f"{file} has other settings than {files[0]}: prepare the data set again")
        if header.shard != [number, *(first.shard or [])[1:]]:
            raise UserError(f"{file} and {files[0]} are of two data sets: prepare the data set again")


def entry_key(index: int) -> bytes:
    """Return the key of image `index`."""
    return b"image-%09d" % index


def label_entry(index: int, value: Value) -> tuple[bytes, bytes]:
    """Return the key and the value of the label of image `index`."""
    return _label_key(index), encode_label(value)


def _label_key(index: int) -> bytes:
    return b"label-%09d" % index


def header_entry(header: Header) -> tuple[bytes, bytes]:
    """Return the key and the value of the header."""
    return _HEADER_KEY, header.encode()


def encode_image(image: Image.Image, format: str, tile: int = TILE) -> bytes:
    """Encode an RGB image. png, webp, raw and tiles are lossless. tile: the side of tiles, for that format."""
    if format == _TILES:
        return encode_tiles(np.array(image), tile)
    buffer = io.BytesIO()
    _WRITERS[format](image, buffer)
    return buffer.getvalue()


def decode_image(value: bytes, format: str) -> Image.Image:
    """Decode an image that `encode_image` has encoded, into RGB. Raises one of UNREADABLE for anything else."""
    if format == "raw":
        pixels = np.load(io.BytesIO(value), allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"pixels of type {pixels.dtype} and shape {pixels.shape}: want uint8 (H, W, 3)")
        return Image.fromarray(pixels)
    if format == _TILES:
        return Image.fromarray(TiledImage(value).read())
    return to_rgb(Image.open(io.BytesIO(value)))


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

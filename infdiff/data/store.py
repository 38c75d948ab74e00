"""The image store: one LMDB file of encoded images and a header that describes them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.data.fields import FieldDescription, decode_field, field_at
from infdiff.data.lmdb_files import read_value
from infdiff.errors import UserError
from infdiff.images.transforms import crop_to_aspect, resize, to_rgb

_WRITERS: dict[str, Callable[[Image.Image, io.BytesIO], None]] = {
    "png": lambda image, file: image.save(file, "PNG"),
    "webp": lambda image, file: image.save(file, "WEBP", lossless=True),
    "jpeg": lambda image, file: image.save(file, "JPEG", quality=95, subsampling=0),
    "raw": lambda image, file: np.save(file, np.asarray(image), allow_pickle=False),
}
FORMATS = tuple(_WRITERS)
_HEADER_KEY = b"infdiff-header"
_KIND = "infdiff-images"


@dataclass(frozen=True)
class Header:
    """Description of a store's content. size is (H, W), or None if images keep their native sizes."""

    count: int
    size: Size | None
    format: str
    resize_filter: str
    crops: int  # entries made from each source image, one after another; 1 for a centre crop
    source: str
    version: int = 1
    field: dict[str, Any] | None = None  # the record of a `FieldDescription`; None for 8-bit RGB images

    def encode(self) -> bytes:
        """Return the header as JSON."""
        return json.dumps({"kind": _KIND} | asdict(self)).encode()

    @staticmethod
    def decode(value: bytes) -> Header:
        """Read the header from JSON. Raises ValueError, TypeError or KeyError for anything else."""
        values = json.loads(value)
        if values.pop("kind", None) != _KIND:
            raise ValueError("not an image store")
        values["size"] = tuple(values["size"]) if values["size"] else None
        return Header(**values)


class ImageStore:
    """Read-only access to a store written by `prepare`.

    Raises UserError when the file is missing, is no LMDB, or is one of another kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not Path(path).exists():
            raise UserError(f"no data set at {path}: make one with infdiff prepare-data SRC --out {path}")
        try:
            self.header = Header.decode(read_value(path, _HEADER_KEY) or b"{}")
            described = self.header.field
            self.field = None if described is None else FieldDescription.from_record(described)
        except (lmdb.Error, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path} is not an infdiff data set ({error or 'no header'}): make one with infdiff prepare-data"
            ) from error

    def __len__(self) -> int:
        return self.header.count

    def holds(self, size: Size) -> bool:
        """Return True if some image is at least as large as `size` (H, W) along both axes."""
        if self.header.size is not None:
            return size[0] <= self.header.size[0] and size[1] <= self.header.size[1]
        sizes = (self.size_of(index) for index in range(len(self)))
        return any(size[0] <= height and size[1] <= width for height, width in sizes)

    def size_of(self, index: int) -> Size:
        """Return the size (H, W) that an image is stored at."""
        if self.field is not None:
            values, _ = self.read_field(index)
            return values.shape[1], values.shape[2]
        width, height = self.read(index).size
        return height, width

    def read(self, index: int) -> Image.Image:
        """Return image `index` in RGB. Raises UserError for a store of fields."""
        if self.field is not None:
            raise UserError(f"{self.path} holds fields of {self.field.channels} channels: this wants RGB images")
        return decode_image(self._value(index), self.header.format)

    def read_field(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (C, H, W) of field `index` in units, and its valid pixels (H, W); None: all."""
        return decode_field(self._value(index))

    def read_at(self, index: int, size: Size) -> Tensor:
        """Return image `index` cropped and resized: (3, H, W) uint8; of fields (C, H, W) float32, NaN where missing."""
        if self.field is not None:
            return field_at(self._value(index), self.field, size)
        return to_tensor(resize(crop_to_aspect(self.read(index), size), size))

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Return a hash of the bytes of some images, in their order."""
        digest = hashlib.blake2b(self.header.format.encode(), digest_size=16)
        for index in indices:
            digest.update(hashlib.blake2b(self._value(index)).digest())
        return digest.hexdigest()

    def _value(self, index: int) -> bytes:
        value = read_value(self.path, entry_key(index))
        if value is None:
            raise UserError(f"{self.path} is damaged: image {index} of {len(self)} is missing")
        return value


def entry_key(index: int) -> bytes:
    """Return the key of image `index`."""
    return b"image-%09d" % index


def header_entry(header: Header) -> tuple[bytes, bytes]:
    """Return the key and the value of the header."""
    return _HEADER_KEY, header.encode()


def encode_image(image: Image.Image, format: str) -> bytes:
    """Encode an RGB image. png, webp and raw are lossless."""
    buffer = io.BytesIO()
    _WRITERS[format](image, buffer)
    return buffer.getvalue()


def decode_image(value: bytes, format: str) -> Image.Image:
    """Decode an image that `encode_image` has encoded, into RGB."""
    if format == "raw":
        return Image.fromarray(np.load(io.BytesIO(value), allow_pickle=False))
    return to_rgb(Image.open(io.BytesIO(value)))


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

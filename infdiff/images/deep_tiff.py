"""TIFF files of several channels of more than 8 bits, which Pillow does not read (TIFF 6.0, sections 2, 14 and 15)."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_KINDS = {1: "u", 2: "i", 3: "f"}
_NONE, _DEFLATE = (1,), (8, 32946)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _COUNTS = 256, 257, 258, 259, 273, 277, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _SAMPLE_FORMAT = 284, 317, 322, 339

Tags = dict[int, tuple[int, ...]]


def is_deep(content: bytes) -> bool:
    """Return True for a TIFF whose first page has several channels of more than 8 bits."""
    if content[:4] not in _ORDERS:
        return False
    try:
        tags = _tags(content)
    except (struct.error, KeyError):
        return False
    return tags.get(_SAMPLES, (1,))[0] > 1 and max(tags.get(_BITS, (1,))) > 8


def decode(content: bytes) -> np.ndarray:
    """Return the values (H, W, C) of the first page. Raises ValueError for what is not read here."""
    tags = _tags(content)
    compression, predictor = tags.get(_COMPRESSION, (1,))[0], tags.get(_PREDICTOR, (1,))[0]
    bits, forms = set(tags[_BITS]), set(tags.get(_SAMPLE_FORMAT, (1,)))
    readable = compression in (*_NONE, *_DEFLATE) and predictor in (1, 2) and _TILE_WIDTH not in tags
    if not readable or len(bits) != 1 or len(forms) != 1 or next(iter(forms)) not in _KINDS:
        raise ValueError("a TIFF of several deep channels in a form that is not read: save it as .npy")
    dtype = np.dtype(f"{_ORDERS[content[:4]]}{_KINDS[forms.pop()]}{bits.pop() // 8}")
    height, width, samples = tags[_HEIGHT][0], tags[_WIDTH][0], tags[_SAMPLES][0]
    planar = tags.get(_PLANAR, (1,))[0] == 2
    pieces = [content[start : start + size] for start, size in zip(tags[_STRIPS], tags[_COUNTS], strict=True)]
    try:
        data = [zlib.decompress(piece) if compression in _DEFLATE else piece for piece in pieces]
        flat = np.frombuffer(b"".join(data), dtype)
        values = flat.reshape((samples, height, width) if planar else (height, width, samples))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"damaged ({error})") from error
    values = np.moveaxis(values, 0, -1) if planar else values
    if predictor == 2:
        values = np.cumsum(values, axis=1, dtype=dtype.newbyteorder("="))
    return values.astype(dtype.newbyteorder("="))


def _tags(content: bytes) -> Tags:
    """The tags of the first page with whole numbers as values."""
    order = _ORDERS[content[:4]]

    def read(form: str, place: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, content, place)

    (start,) = read("I", 4)
    (count,) = read("H", start)
    found: Tags = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = read("HHI", place)
        if kind not in _TYPES:
            continue
        form = f"{number}{_TYPES[kind]}"
        inline = struct.calcsize(order + form) <= 4
        found[tag] = read(form, place + 8 if inline else read("I", place + 8)[0])
    return found

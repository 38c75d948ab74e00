"""PNG files of several channels of 16 bits, which Pillow reduces to 8 (W3C PNG specification, sections 7, 9 and 11)."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Samples a pixel by colour type.
_SAMPLES = {2: 3, 4: 2, 6: 4}


def is_deep(content: bytes) -> bool:
    """Return True for a PNG of more than one channel of 16 bits."""
    return content.startswith(_SIGNATURE) and len(content) > 26 and content[24] == 16 and content[25] in _SAMPLES


def decode(content: bytes) -> np.ndarray:
    """Return the values (H, W, C) uint16. Raises ValueError for a damaged or an interlaced file."""
    width, height, _, colour, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if interlace:
        raise ValueError("an interlaced 16-bit PNG: save it without interlacing, or as .npy")
    try:
        data = zlib.decompress(b"".join(_chunks(content)))
    except (zlib.error, struct.error) as error:
        raise ValueError(f"damaged ({error})") from error
    pixel = 2 * _SAMPLES[colour]
    rows = np.frombuffer(data, np.uint8)
    if rows.size != height * (1 + pixel * width):
        raise ValueError("damaged (it ends early)")
    rows = rows.reshape(height, 1 + pixel * width)
    out = np.zeros((height + 1, pixel * width), np.uint8)
    for number, row in enumerate(rows):
        out[number + 1] = _restored(int(row[0]), row[1:], out[number], pixel)
    return out[1:].view(">u2").astype(np.uint16).reshape(height, width, -1)


def _chunks(content: bytes) -> list[bytes]:
    """The image data, in order."""
    found, place = [], len(_SIGNATURE)
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            found.append(content[place + 8 : place + 8 + length])
        place += length + 12
    return found


def _restored(kind: int, row: np.ndarray, above: np.ndarray, pixel: int) -> np.ndarray:
    """A row without its filter: 0 none, 1 the pixel to the left, 2 the one above, 3 their mean, 4 Paeth's choice."""
    if kind == 0:
        return row
    if kind == 1:
        return np.cumsum(row.reshape(-1, pixel), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return row + above
    if kind not in (3, 4):
        raise ValueError("damaged (an unknown filter)")
    line, up = row.tolist(), above.tolist()
    for place, value in enumerate(line):
        left, corner = (line[place - pixel], up[place - pixel]) if place >= pixel else (0, 0)
        guess = (left + up[place]) // 2 if kind == 3 else _paeth(left, up[place], corner)
        line[place] = (value + guess) & 255
    return np.array(line, np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]

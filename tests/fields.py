"""Small folders of fields: real values of several channels, 16-bit images, and missing pixels."""

import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 24


def wave(number, phase=0.0):
    """A smooth function (H, W), another one for each number."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    return np.sin(3 * x + number + phase) + np.cos(2 * y * number - phase)


def two_channels(folder, count=12):
    """float32 (2, H, W) arrays, the second about 100,000."""
    folder.mkdir()
    for i in range(count):
        np.save(folder / f"{i:02}.npy", np.stack([wave(i), 1e5 + 100 * wave(i, 1.0)]).astype(np.float32))
    return folder


def deep_images(folder, count=12):
    """16-bit grey PNGs."""
    folder.mkdir()
    for i in range(count):
        Image.fromarray(((wave(i) + 2) * 10_000).astype(np.uint16)).save(folder / f"{i:02}.png")
    return folder


def with_holes(folder, count=12):
    """float32 (H, W) arrays in which about a third of the pixels is NaN."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        values = wave(i).astype(np.float32)
        values[random.random(values.shape) < 0.3] = np.nan
        np.save(folder / f"{i:02}.npy", values)
    return folder


def png16(values, filters=(0,)):
    """A PNG of 16-bit values (H, W, C), its rows filtered by turns (W3C PNG specification, section 9)."""
    height, width, channels = values.shape
    rows = values.astype(">u2").tobytes()
    stride, pixel = 2 * channels * width, 2 * channels
    above, data = bytes(stride), b""
    for i in range(height):
        row, kind = rows[i * stride : (i + 1) * stride], filters[i % len(filters)]
        out = bytearray()
        for j, value in enumerate(row):
            a, c = (row[j - pixel], above[j - pixel]) if j >= pixel else (0, 0)
            b = above[j]
            p = a + b - c
            nearest = a if abs(p - a) <= min(abs(p - b), abs(p - c)) else b if abs(p - b) <= abs(p - c) else c
            out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        data, above = data + bytes([kind]) + bytes(out), row
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {3: 2, 2: 4, 4: 6}[channels], 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values, compressed=False, predictor=1, planar=False):
    """A little-endian TIFF of values (H, W, C) in one strip, or one a channel (TIFF 6.0)."""
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    coded = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1])) if predictor == 2 else values
    planes = [coded[..., c] for c in range(channels)] if planar else [coded]
    strips = [zlib.compress(p.tobytes()) if compressed else p.tobytes() for p in planes]
    body, places = b"", []
    for strip in strips:
        places.append(8 + len(body))
        body += strip + b"\0" * (len(strip) % 2)
    tags = {256: (width,), 257: (height,), 258: (8 * values.itemsize,) * channels, 259: (8 if compressed else 1,)}
    tags |= {262: (1,), 273: tuple(places), 277: (channels,), 278: (height,), 279: tuple(map(len, strips))}
    tags |= {284: (2 if planar else 1,), 317: (predictor,), 339: (kind,) * channels}
    entries = b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            place, body = 8 + len(body), body + packed
            packed = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory

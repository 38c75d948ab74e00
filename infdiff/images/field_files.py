"""Read and write fields (C, H, W) of real values: NumPy arrays, and TIFF and PNG of any depth."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from infdiff.coordinates import Size
from infdiff.errors import OptionError, first_line
from infdiff.files import whole_file
from infdiff.images import deep_png, deep_tiff
from infdiff.images.transforms import to_rgb

ARRAY_SUFFIXES = {".npy", ".npz"}
LAYOUTS = ("chw", "hwc")
# Forms that fields are written in.
FIELD_FORMS = ("npy", "tif")
# What is raised for files that cannot be read.
UNREADABLE = (OSError, ValueError, KeyError, SyntaxError, EOFError, zipfile.BadZipFile, Image.DecompressionBombError)


def decode_array(content: bytes, key: str | None = None) -> tuple[np.ndarray, str]:
    """Decode a file: its values as they are, and their layout: "hw", "chw", "hwc", or "" where the file does not say.

    .npy, .npz (the array `key`, or the only one), or an image. The pages of a TIFF are its channels. Raises ValueError
    or another of UNREADABLE.
    """
    if content.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(content), allow_pickle=False), ""
    if content.startswith(b"PK"):
        return _from_npz(content, key), ""
    if deep_png.is_deep(content):
        return deep_png.decode(content), "hwc"
    if deep_tiff.is_deep(content):
        return deep_tiff.decode(content), "hwc"
    with Image.open(io.BytesIO(content)) as image:
        pages = [_plane(page) for page in ImageSequence.Iterator(image)] if image.format == "TIFF" else [_plane(image)]
    if len(pages) == 1:
        return pages[0], "hw" if pages[0].ndim == 2 else "hwc"
    if any(page.ndim != 2 or page.shape != pages[0].shape for page in pages):
        raise ValueError("pages of several sizes or of several channels: want one channel a page")
    return np.stack(pages), "chw"


def is_deep(content: bytes) -> bool:
    """Return True for an image of more than 8 bits, which as RGB would lose depth."""
    if deep_png.is_deep(content) or deep_tiff.is_deep(content):
        return True
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.mode == "F" or image.mode.startswith("I")
    except UNREADABLE:
        return False


def with_channels_first(array: np.ndarray, layout: str) -> np.ndarray:
    """Return an array of a layout as (C, H, W). Raises ValueError for one of other dimensions."""
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise ValueError(f"an array of shape {array.shape}: want (H, W), (C, H, W) or (H, W, C), one image a file")
    return np.moveaxis(array, -1, 0) if layout == "hwc" else array


def guessed_layout(shape: Sequence[int]) -> str:
    """Return the layout of an array of a shape, by where its shortest side is. Raises ValueError for a tie."""
    if len(shape) != 3:
        return "hw"
    if shape[0] == shape[2]:
        raise ValueError(f"an array of shape {tuple(shape)}: say where its channels are with --layout chw or hwc")
    return "chw" if shape[0] < shape[2] else "hwc"


def read_field(option: str, path: Path, channels: int) -> np.ndarray:
    """Read a file as (C, H, W) float32, C of `channels`, NaN where a value is missing.

    Raises OptionError naming the option and the file.
    """
    try:
        array, layout = decode_array(path.read_bytes())
    except FileNotFoundError:
        raise OptionError(option, path, "no such file") from None
    except UNREADABLE as error:
        raise OptionError(option, path, f"cannot be read as a field ({first_line(error)})") from error
    try:
        return as_field(array, layout, channels)
    except ValueError as error:
        raise OptionError(option, path, str(error)) from error


def as_field(array: np.ndarray, layout: str, channels: int) -> np.ndarray:
    """Return a decoded array, of a layout as `decode_array` says, as (C, H, W) float32, C of `channels`.

    Raises ValueError for one of other dimensions or types, and for infinite values.
    """
    if array.ndim == 3 and not layout:
        layout = "hwc" if array.shape[0] != channels == array.shape[2] else "chw"
    field = with_channels_first(array, layout)
    if len(field) != channels:
        raise ValueError(f"{len(field)} channels, and the run's fields have {channels}")
    if not np.issubdtype(field.dtype, np.number) or np.iscomplexobj(field):
        raise ValueError(f"values of type {field.dtype}: want real numbers")
    if np.isinf(field).any():
        raise ValueError("infinite values: replace them, or put NaN where values are missing")
    return np.ascontiguousarray(field, np.float32)


def decode_mask(content: bytes, size: Size) -> np.ndarray:
    """Decode the mask of an image of a size as (H, W) bool: true, which is any value but 0, where it is valid.

    Raises ValueError for a mask of another size, or another of UNREADABLE.
    """
    array, layout = decode_array(content)
    mask = (with_channels_first(array, layout or "hwc") != 0).any(axis=0)
    if mask.shape != size:
        shape, wanted = (f"{height}x{width}" for height, width in (mask.shape, size))
        raise ValueError(f"{shape} pixels, and the image has {wanted}: give each image a mask of its size")
    return mask


def save_field(field: np.ndarray, path: Path) -> None:
    """Write a field (C, H, W) float32 as .npy, or as a TIFF with a page for each channel, atomically."""
    with whole_file(path) as partial, partial.open("w+b") as file:
        if path.suffix == ".npy":
            np.save(file, field, allow_pickle=False)
        else:
            pages = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in field]
            pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])


def _from_npz(content: bytes, key: str | None) -> np.ndarray:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if key is None and len(arrays.files) != 1:
            raise ValueError(f"it holds {', '.join(arrays.files) or 'nothing'}: name one with --key")
        if key is not None and key not in arrays.files:
            raise ValueError(f"it holds no {key}, but {', '.join(arrays.files)}")
        return arrays[key or arrays.files[0]]


def _plane(image: Image.Image) -> np.ndarray:
    """The values of an image that Pillow reads without loss: (H, W), or (H, W, C)."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(to_rgb(image))
    return np.array(image)

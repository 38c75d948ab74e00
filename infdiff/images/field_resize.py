"""Crop and resize fields (C, H, W) of real values with missing pixels, by the filter of images, without clipping."""

from __future__ import annotations

import numpy as np
from PIL import Image

from infdiff.coordinates import Size
from infdiff.images.transforms import centre_box

# A pixel of which less is known is missing.
_LEAST_KNOWN = 0.5


def resized(values: np.ndarray, valid: np.ndarray | None, size: Size) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the largest centre crop of the aspect ratio of `size` (H, W) at that size, and its valid pixels (H, W).

    Values come back as they are where nothing is resized, and else as float32: the mean over valid pixels alone,
    resize(x m) / resize(m), known where at least half of what a pixel covers is valid.
    """
    return resized_box(values, valid, centre_box((values.shape[1], values.shape[2]), size), size)


def resized_nan(values: np.ndarray, size: Size) -> np.ndarray:
    """Return fields (C, h, w) float32, NaN where missing, as `resized`; a missing pixel is NaN in every channel."""
    valid = ~np.isnan(values).any(axis=0)
    out, known = resized(values, None if valid.all() else valid, size)
    return out if known is None else np.where(known, out, np.float32(np.nan))


def resized_box(
    values: np.ndarray, valid: np.ndarray | None, box: tuple[int, int, int, int], size: Size
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the part in a box (left, top, right, bottom) at a size (H, W), as `resized`."""
    left, top, right, bottom = box
    values = values[:, top:bottom, left:right]
    valid = None if valid is None else valid[top:bottom, left:right]
    if values.shape[1:] == size:
        return values, valid
    known = values.astype(np.float32)
    if valid is None:
        return np.stack([_resize(plane, size) for plane in known]), None
    share = _resize(valid.astype(np.float32), size)
    kept = share >= _LEAST_KNOWN
    sums = np.stack([_resize(np.where(valid, plane, np.float32(0)), size) for plane in known])
    return np.where(kept, sums / np.where(kept, share, np.float32(1)), np.float32(0)), kept


def as_stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return resized values in the type of the data: whole numbers are rounded, and kept in its range."""
    if values.dtype == dtype or dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return values.round().clip(limits.min, limits.max).astype(dtype)


def _resize(plane: np.ndarray, size: Size) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))

"""Records of a store of fields, made from one file at a time, as worker processes do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infdiff.coordinates import Size
from infdiff.data.fields import DTYPES, encode_field
from infdiff.data.normalisation import Statistics
from infdiff.data.prepare import Recipe
from infdiff.data.sources import Source
from infdiff.errors import UserError
from infdiff.images.field_files import UNREADABLE, decode_array, decode_mask, guessed_layout, with_channels_first
from infdiff.images.field_resize import as_stored, resized, resized_box
from infdiff.images.transforms import random_box
from infdiff.seeding import derive_seed

# Random crops that are tried for each one wanted, where some have too few valid pixels.
_TRIES = 50

# Values (C, H, W), and which pixels (H, W) are valid; None: all.
Piece = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class FieldRecipe:
    """Reading of each file.

    key: of the array in an .npz; None: the only one. layout: "chw" or "hwc" of arrays; "" where `Form` says it.
    missing: a value that stands for none. masks: the name of the mask file of each file that has one. min_valid: images
    with a smaller part of valid pixels are left out; None refuses one without any.
    """

    key: str | None = None
    layout: str = ""
    missing: float | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    min_valid: float | None = None


@dataclass(frozen=True)
class Form:
    """Properties that all files share; name: of the file that they were read from."""

    name: str
    channels: int
    dtype: np.dtype
    layout: str

    @property
    def stored(self) -> np.dtype:
        """The type of the stored values: the files', or float32 where the store has no such type."""
        if self.dtype == bool:
            return np.dtype(np.uint8)
        return self.dtype if self.dtype.name in DTYPES else np.dtype(np.float32)


@dataclass(frozen=True)
class Records:
    """The records of one file, their statistics and their fewest valid pixels; or why it is left out."""

    name: str
    entries: list[bytes] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)
    fewest: int | None = None  # where some pixel is missing
    reason: str = ""
    fatal: bool = False  # the reason is one to prepare nothing


class _RefusedError(ValueError):
    """A file that no store can be made with."""


def first_form(source: Source, recipe: FieldRecipe) -> Form:
    """Return the properties of the first file that can be read. Raises UserError where none can."""
    reason = ""
    for name in source.names:
        try:
            array, layout = decode_array(source.read(name), recipe.key)
            layout = layout or recipe.layout or guessed_layout(array.shape)
            form = Form(name, len(with_channels_first(array, layout)), array.dtype, layout)
        except UNREADABLE as error:
            reason = reason or f"{name}: {' '.join(str(error).split())}"
            continue
        if array.dtype.kind not in "buif":
            raise UserError(f"{source.path}: {name} holds values of type {array.dtype}: want real numbers")
        return form
    raise UserError(f"none of the {len(source.names)} files in {source.path} is usable: {reason}")


def records_of(source: Source, recipe: Recipe, fields: FieldRecipe, form: Form, sample: int, number: int) -> Records:
    """Return the records of file `number` of a source. sample: the most values of each that quantiles are taken of."""
    name = source.names[number]
    try:
        values, valid = _read(source, fields, form, name)
        height, width = values.shape[1:]
        if height * width > recipe.max_pixels:
            return Records(name, reason=f"{width}x{height} pixels is over max_pixels, {recipe.max_pixels}")
        if min(height, width) < recipe.min_side:
            return Records(name, reason=f"{width}x{height} pixels is under min_side, {recipe.min_side}")
        pieces = _pieces(values, valid, recipe, fields, number)
    except _RefusedError as error:
        return Records(name, reason=str(error), fatal=True)
    except UNREADABLE as error:
        return Records(name, reason=" ".join(str(error).split()) or type(error).__name__)
    if pieces is None:
        if fields.min_valid is None:
            remedy = "remove it, or leave such images out with --min-valid 0.1"
            return Records(name, reason=f"holds no valid pixel: {remedy}", fatal=True)
        return Records(name, reason=f"fewer than {fields.min_valid:g} of its pixels are valid")
    entries, statistics, fewest = [], [], None
    for piece, known in pieces:
        stored = as_stored(piece, form.stored)
        entries.append(encode_field(stored, known))
        flat = stored.reshape(form.channels, -1)
        statistics.append(Statistics.of(flat if known is None else flat[:, known.ravel()], sample))
        if known is not None:
            fewest = min(int(known.sum()), known.size if fewest is None else fewest)
    return Records(name, entries, statistics, fewest)


def _read(source: Source, recipe: FieldRecipe, form: Form, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values (C, H, W) and valid pixels (H, W), None for all. Raises _RefusedError, or one of UNREADABLE."""
    array, layout = decode_array(source.read(name), recipe.key)
    values = with_channels_first(array, layout or form.layout)
    if len(values) != form.channels:
        raise _RefusedError(f"has {len(values)} channels, and {form.name} {form.channels}: give files of one kind")
    if values.dtype != form.dtype:
        raise _RefusedError(f"holds {values.dtype}, and {form.name} {form.dtype}: save all of them in one type")
    missing = np.zeros(values.shape[1:], bool)
    if values.dtype.kind == "f":
        missing |= np.isnan(values).any(axis=0)
    if recipe.missing is not None:
        missing |= (values == values.dtype.type(recipe.missing)).any(axis=0)
    if name in recipe.masks:
        mask = recipe.masks[name]
        try:
            missing |= ~decode_mask(source.read(mask), (values.shape[1], values.shape[2]))
        except UNREADABLE as error:
            raise _RefusedError(f"its mask {mask}: {' '.join(str(error).split())}") from error
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        stored = values.astype(form.stored)
    if stored.dtype.kind == "f" and np.isinf(stored[:, ~missing]).any():
        raise _RefusedError("holds infinite values: replace them, or mark them as missing (NaN, --missing or a mask)")
    if values.dtype.kind in "iu" and (stored[:, ~missing].astype(np.float64) != values[:, ~missing]).any():
        raise _RefusedError(f"holds {values.dtype} that float32 rounds: save it as float32 or uint16")
    return stored, ~missing if missing.any() else None


def _pieces(
    values: np.ndarray, valid: np.ndarray | None, recipe: Recipe, fields: FieldRecipe, number: int
) -> list[Piece] | None:
    """The image as it is stored, or its crops; None where too few pixels are valid."""
    size = recipe.size
    if size is None or not recipe.crops:
        piece = (values, valid) if size is None else resized(values, valid, size)
        return [_tidied(piece)] if _is_known(piece, fields) else None
    random = np.random.default_rng(derive_seed(recipe.seed, "crop", number))
    full: Size = (values.shape[1], values.shape[2])
    found: list[Piece] = []
    for _ in range(recipe.crops if valid is None else _TRIES * recipe.crops):
        piece = resized_box(values, valid, random_box(full, size, random, recipe.min_crop), size)
        if _is_known(piece, fields):
            found.append(_tidied(piece))
        if len(found) == recipe.crops:
            return found
    return None


def _is_known(piece: Piece, fields: FieldRecipe) -> bool:
    known = piece[1]
    return known is None or bool(known.any() and known.mean() >= (fields.min_valid or 0))


def _tidied(piece: Piece) -> Piece:
    """The piece without a mask where it has every pixel."""
    return piece if piece[1] is None or not piece[1].all() else (piece[0], None)

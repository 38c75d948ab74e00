"""Prepare a store of fields: images of any channels and real values, with missing pixels. Complete or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from infdiff.data.extent import Extent
from infdiff.data.field_records import FieldRecipe, Form, first_form, records_of
from infdiff.data.fields import FIELD_FORMAT, FieldDescription
from infdiff.data.label_files import SourceLabels
from infdiff.data.normalisation import NORMALISATIONS, Normalisation, Statistics
from infdiff.data.prepare import Recipe
from infdiff.data.sources import Source
from infdiff.data.store import Header
from infdiff.data.writers import new_store
from infdiff.errors import OptionError, UserError
from infdiff.images.field_files import ARRAY_SUFFIXES, LAYOUTS, UNREADABLE, is_deep
from infdiff.images.transforms import RESIZE_FILTER

# Values of each channel that quantiles are taken of, and the fewest of one image.
_SAMPLE, _SAMPLE_EACH = 1 << 21, 64
_MASK = ".mask"


@dataclass(frozen=True)
class FieldOptions:
    """Reading of fields, and the meaning of their values. None: guessed.

    layout: "chw" or "hwc", of arrays. units, names: one a channel. extent: width of a stored field. The rest as
    `FieldRecipe` and `Normalisation`.
    """

    normalise: str = "minmax"
    key: str | None = None
    layout: str | None = None
    missing: float | None = None
    min_valid: float | None = None
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    extent: Extent | None = None

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise OptionError("normalise", self.normalise, f"choose one of {', '.join(NORMALISATIONS)}")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise OptionError("layout", self.layout, f"choose one of {', '.join(LAYOUTS)}")
        if self.units and self.normalise == "none":
            raise OptionError(
                "units",
                ",".join(self.units),
                "networks want values near 1, which units seldom have: give --normalise minmax, meanstd or quantile",
            )
        if self.min_valid is not None and not 0 < self.min_valid <= 1:
            raise OptionError("min-valid", f"{self.min_valid:g}", "want a part of the pixels, above 0 and at most 1")


@dataclass
class Prepared:
    """Number of fields written, the files left out, with reasons, their layout and their description."""

    description: FieldDescription
    layout: str
    written: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def fields_of(source: Source) -> Source | None:
    """Return the source of the files that are fields by themselves; None for a source of 8-bit images.

    Arrays are, if there is nothing else; and so are images if the first that can be read has more than 8 bits.
    """
    names, _ = without_masks(source.names)
    arrays = [name for name in names if _is_array(name)]
    if arrays and len(arrays) == len(names):
        return source
    for name in names:
        if _is_array(name):
            continue
        try:
            content = source.read(name)
        except UNREADABLE:
            continue
        if content.startswith(b"\x93NUMPY"):
            return source
        return source if is_deep(content) else None
    return None


def without_arrays(source: Source) -> Source:
    """Return the source without NumPy arrays, which are no images."""
    return replace(source, names=tuple(name for name in source.names if not _is_array(name)))


def without_masks(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names of images, and the name of the mask of each that has one: a.mask.png is that of a.npy."""
    masks = {str(PurePosixPath(name).with_suffix("").with_suffix("")): name for name in names if _is_mask(name)}
    images = tuple(name for name in names if not _is_mask(name))
    return images, {name: masks[stem] for name in images if (stem := _stem(name)) in masks}


def prepare_fields(
    source: Source,
    out: str | Path,
    recipe: Recipe,
    options: FieldOptions,
    *,
    labels: SourceLabels | None = None,
    workers: int = 0,
    shards: int = 0,
    progress: bool = True,
) -> Prepared:
    """Write the store to a partial file and rename it, as `prepare` does.

    labels: of each field. shards: as there. Raises UserError, naming the file and the remedy and leaving nothing
    behind, for files whose channels or types differ, that hold infinite values or no valid pixel, or whose mask does
    not fit; and when none is usable.
    """
    names, masks = without_masks(source.names)
    source = replace(source, names=names)
    reading = FieldRecipe(options.key, options.layout or "", options.missing, masks, options.min_valid)
    sample = max(_SAMPLE_EACH, _SAMPLE // (len(names) * max(1, recipe.crops)))
    left_out, statistics, fewest, used = [], [], [], []
    with new_store(out, shards, len(names)) as writer:
        form = first_form(source, reading)
        _check_channels(options, form)
        made = writer.write(partial(records_of, source, recipe, reading, form, sample), len(names), workers)
        for records in tqdm(made, total=len(names), unit="field", disable=None if progress else True):
            if records.fatal:
                raise UserError(f"{source.path}: {records.name} {records.reason}")
            if records.reason:
                left_out.append((records.name, records.reason))
            used += [records.name] * len(records.entries)
            statistics += records.statistics
            fewest += [] if records.fewest is None else [records.fewest]
        if not used:
            name, reason = left_out[0]
            raise UserError(f"none of the {len(names)} files in {source.path} is usable: {name}: {reason}")
        described = _description(form, options, Statistics.merge(statistics), min(fewest, default=None))
        header = Header(
            len(used),
            recipe.size,
            FIELD_FORMAT,
            RESIZE_FILTER,
            max(1, recipe.crops),
            source.path,
            field=described.record(),
        )
        writer.finish(header, labels, used)
    return Prepared(described, form.layout, len(used), left_out)


def _description(form: Form, options: FieldOptions, statistics: Statistics, fewest: int | None) -> FieldDescription:
    normalisation = Normalisation.fitted(options.normalise, statistics)
    low, high = (normalisation.apply(side[:, None])[:, 0].tolist() for side in (statistics.low, statistics.high))
    seen = normalisation.apply(statistics.sample).astype(np.float64)
    return FieldDescription(
        channels=form.channels,
        dtype=form.stored.name,
        names=options.names,
        units=options.units,
        normalisation=normalisation,
        limits=tuple(zip(low, high, strict=True)),
        fewest=fewest,
        rms=float(np.sqrt(np.square(seen).mean())),
        extent=options.extent,
    )


def _check_channels(options: FieldOptions, form: Form) -> None:
    for name, given in (("units", options.units), ("names", options.names)):
        if given and len(given) != form.channels:
            problem = f"{len(given)} for {form.channels} channels ({form.name}): give one for each, with commas"
            raise OptionError(name, ",".join(given), problem)
    if options.missing is not None and form.dtype.kind in "iu":
        limits = np.iinfo(form.dtype)
        if not (limits.min <= options.missing <= limits.max and options.missing == int(options.missing)):
            raise OptionError("missing", f"{options.missing:g}", f"{form.dtype} has no such value ({form.name})")


def _is_array(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ARRAY_SUFFIXES


def _is_mask(name: str) -> bool:
    return PurePosixPath(PurePosixPath(name).stem).suffix.lower() == _MASK


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))

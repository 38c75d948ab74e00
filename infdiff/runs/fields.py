"""The fields that a run is trained on: settings that follow from the store, and their description in the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infdiff.config.files import changed
from infdiff.config.settings import Config, InfinityDiffConfig
from infdiff.coordinates import Size, format_size
from infdiff.data.fields import FieldDescription
from infdiff.data.image_set import ImageSet
from infdiff.data.store import ImageStore
from infdiff.errors import OptionError, UserError
from infdiff.images.colour import coloured, picture
from infdiff.images.convert import from_images
from infdiff.images.field_files import FIELD_FORMS, read_field, save_field
from infdiff.images.field_resize import resized_nan
from infdiff.images.pixels import to_uint8, valid_pixels
from infdiff.images.write import save_png
from infdiff.methods.checks import check_config
from infdiff.methods.sizes import training_weights
from infdiff.pipelines.inpaint import filled_in

# (B, C, H, W), as data sets hold images or as networks make them -> pictures (B, 3, H', W') uint8.
ToPictures = Callable[[Tensor], Tensor]


def field_of(config: Config) -> FieldDescription | None:
    """Return the description of a configuration's data; None for RGB images. Raises UserError for a missing store."""
    return ImageStore(config.data.path).field if config.data.path else None


def generated_field(config: Config, field: FieldDescription | None) -> FieldDescription | None:
    """Return the description of the channels that are generated, without those that are a condition of them."""
    return None if field is None else field.part(0, config.data.channels)


def condition_field(config: Config, field: FieldDescription | None) -> FieldDescription | None:
    """Return the description of a run's condition channels; None where there are none."""
    known = config.data.condition_channels
    return None if field is None or not known else field.part(config.data.channels, config.data.channels + known)


def with_field_settings(config: Config) -> Config:
    """Return the configuration with the settings that follow from its store of fields; of RGB images, as it is.

    Raises UserError for settings that contradict the store, or do not work with fields.
    """
    field = field_of(config)
    known = config.data.condition_channels
    if field is None:
        if known:
            raise UserError(f"data.condition_channels: {known}: goes with fields: prepare images with --normalise")
        return config
    if known >= field.channels:
        raise UserError(
            f"data.condition_channels: {known}: the fields of {config.data.path} have {field.channels} channels, of "
            "which at least one is to be generated"
        )
    field = field.part(0, field.channels - known)
    if config.data.channels not in (3, field.channels):
        raise UserError(
            f"data.channels: {config.data.channels}: the fields of {config.data.path} have {field.channels} channels"
            + (f" and {known} condition channels" if known else "")
        )
    if config.train.eval_every:
        raise UserError("train.eval_every: its metrics are of RGB images: set it to 0 for fields")
    settings: dict[str, Any] = {"data.channels": field.channels, "data.valid_pixels": _valid_pixels(config)}
    if isinstance(config, InfinityDiffConfig) and not config.sample.limits:
        settings["sample.limits"] = [list(_apart(pair)) for pair in field.limits]
    config = changed(config, settings)
    check_config(config)
    return config


def normalised_as(store: ImageStore, field: FieldDescription | None) -> ImageStore:
    """Return a store of other images, which networks see in another store's normalisation.

    Raises UserError where one holds fields and the other does not, or their channels differ.
    """
    own = (3, False) if store.field is None else (store.field.channels, True)
    other = (3, False) if field is None else (field.channels, True)
    if own != other:
        kinds = [f"{'fields' if fields else 'RGB images'} of {channels} channels" for channels, fields in (own, other)]
        raise UserError(f"{store.path} holds {kinds[0]}, and the training data {kinds[1]}: prepare both alike")
    store.field = field
    return store


def require_channels(config: Config, store: ImageStore) -> None:
    """Raise UserError where the configuration is one for images of other channels than the store's."""
    held = (3 if store.field is None else store.field.channels) - config.data.condition_channels
    if held != config.data.channels:
        raise UserError(f"data.channels: {config.data.channels}, and the images of {store.path} have {held}")


def pictures_of(field: FieldDescription | None) -> ToPictures:
    """Return what makes pictures of images: those of fields in colour, without bars."""
    if field is None:
        return lambda images: images if images.dtype == torch.uint8 else to_uint8(images)
    return lambda images: coloured(images.float(), field.limits)


class FieldWriter:
    """Writes fields (C, H, W) float32, normalised, as files in units, with a PNG picture that has a colour bar.

    form: "npy" or "tif".
    """

    def __init__(self, field: FieldDescription, form: str) -> None:
        if form not in FIELD_FORMS:
            raise OptionError("format", form, f"choose one of {', '.join(FIELD_FORMS)}")
        self.field, self.form = field, form
        self.limits = field.limits_in_units

    def __call__(self, image: Tensor, path: Path) -> Tensor:
        """Write both files, named as `path` but for its suffix, and return the picture (3, H, W) uint8."""
        return self.write_units(self.field.in_units(image[None])[0], path)

    def write_units(self, values: Tensor, path: Path) -> Tensor:
        """Write values (C, H, W) that are in units already."""
        save_field(values.numpy(), path.with_suffix(f".{self.form}"))
        labels = [self.field.label(channel) for channel in range(self.field.channels)]
        shown = picture(values, self.limits, labels)
        save_png(shown, path.with_suffix(".png"))
        return shown


def writer_of(field: FieldDescription | None, form: str | None) -> FieldWriter | None:
    """Return what writes a run's fields, by default as .npy; None for RGB images. Raises OptionError for their form."""
    if field is None:
        if form is not None:
            raise OptionError("format", form, "goes with runs of fields: images are PNG files")
        return None
    return FieldWriter(field, form or FIELD_FORMS[0])


def to_normalised(field: FieldDescription, images: Any) -> Tensor:
    """Convert one field, or several of one size, in units to (N, C, H, W) float32, normalised.

    Arrays or tensors (H, W) of one channel, (C, H, W) or (N, C, H, W); missing values are NaN. Raises ValueError for
    anything else.
    """
    if isinstance(images, list | tuple):
        images = [image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image) for image in images]
        if len({image.shape for image in images}) != 1:
            raise ValueError("fields of several sizes, or none: give them one by one")
        images = np.stack([image[None] if image.ndim == 2 else image for image in images])
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    array = array[None] if array.ndim == 2 else array
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[1] != field.channels or array.dtype.kind not in "buif":
        raise ValueError(
            f"fields of shape {array.shape} and type {array.dtype}: want numbers (N, {field.channels}, H, W)"
        )
    if np.isinf(array).any():
        raise ValueError("fields with infinite values: put NaN where values are missing")
    return torch.stack([field.normalised(one) for one in array])


def read_fields_at(field: FieldDescription, option: str, paths: Sequence[Path], size: Size) -> Tensor:
    """Read files in units as (N, C, H, W) float32, normalised, cropped and resized; missing pixels are filled in."""
    read = (field.normalised(resized_nan(read_field(option, path, field.channels), size))[None] for path in paths)
    return torch.cat([filled_in(image, ~valid_pixels(image)[0]) for image in read])


def from_normalised(field: FieldDescription, images: Tensor, form: str) -> Any:
    """Convert (N, C, H, W), normalised, to units: "array" and "tensor" alike, "numpy" (N, H, W, C); "pil" pictures."""
    if form == "pil":
        return from_images(coloured(images.float(), field.limits).cpu(), form)
    return in_form(field.in_units(images), form)


def in_form(values: Tensor, form: str) -> Any:
    """Return values (N, C, H, W) as `from_normalised` does."""
    if form not in ("array", "numpy", "tensor"):
        raise ValueError(f"output={form!r}: choose one of pil, numpy, tensor, array")
    if form == "tensor":
        return values
    return values.numpy() if form == "array" else values.permute(0, 2, 3, 1).contiguous().numpy()


def _valid_pixels(config: Config) -> Mapping[str, int]:
    """The fewest valid pixels of an image at each size of training; none where no pixel is missing."""
    stores = [ImageStore(path) for path in (config.data.path, config.data.validation_path) if path]
    holed = [store for store in stores if store.field is not None and store.field.fewest is not None]
    if not holed:
        return {}
    return {format_size(size): min(_fewest(store, size) for store in holed) for size in training_weights(config)}


def _fewest(store: ImageStore, size: Size) -> int:
    assert store.field is not None
    assert store.field.fewest is not None
    if store.header.size == size:
        return store.field.fewest
    images = ImageSet(store, list(range(len(store))), size)
    counts: Sequence[int] = [int((~images[i].isnan().any(dim=0)).sum()) for i in range(len(images))]
    if min(counts) == 0:
        place = counts.index(0)
        raise UserError(
            f"{store.path}: image {place} has no valid pixel at {format_size(size)}: prepare at this size, with "
            "--min-valid 0.1 to leave such images out"
        )
    return min(counts)


def _apart(pair: tuple[float, float]) -> tuple[float, float]:
    """The limits of a channel, which of a constant one are a little apart."""
    return pair if pair[0] < pair[1] else (pair[0] - 0.5, pair[1] + 0.5)

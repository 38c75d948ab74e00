"""Conditions of a run: what follows from its store, what is kept with it, and what images to be sampled are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from infdiff.config.files import changed
from infdiff.config.settings import Config
from infdiff.coordinates import Size
from infdiff.data.fields import FieldDescription
from infdiff.data.labels import LabelDescription
from infdiff.data.store import ImageStore
from infdiff.diffusion.conditions import Condition, with_known
from infdiff.errors import OptionError, UserError
from infdiff.images.field_resize import resized_nan

# The label that stands for one class after the other.
ALL_CLASSES = "all"
# Names in error messages.
_SHOWN = 20


def labels_of(config: Config) -> LabelDescription | None:
    """Return what the labels of a configuration's data mean; None without. Raises UserError for a missing store."""
    return ImageStore(config.data.path).labels if config.data.path else None


def with_label_settings(config: Config) -> Config:
    """Return the configuration with the settings that follow from the labels of its store.

    Raises UserError for settings that contradict the store.
    """
    labels, asked = labels_of(config), config.model.condition
    if labels is None and (asked.classes or asked.vector):
        raise UserError(f"model.condition: {_origin(config)} has no labels: prepare it with --labels")
    if labels is None:
        return config
    held = {"classes": len(labels.classes), "vector": labels.length}
    for name, number in held.items():
        if getattr(asked, name) not in (0, number):
            problem = f"{_origin(config)} has {labels.describe()}"
            raise UserError(f"model.condition.{name}: {getattr(asked, name)}: {problem}")
    return changed(config, {f"model.condition.{name}": number for name, number in held.items()})


def require_labels(config: Config, store: ImageStore) -> None:
    """Raise UserError where the configuration is one for images of other labels than the store's."""
    asked = config.label_dim
    if asked and (store.labels is None or store.labels.dim != asked):
        held = "no labels" if store.labels is None else store.labels.describe()
        raise UserError(f"model.condition: {store.path} has {held}: prepare it with those that the run has")


def labelled_as(store: ImageStore, labels: LabelDescription | None) -> ImageStore:
    """Return a store of other images, whose labels networks see as those of another store.

    Raises UserError where their classes, or the lengths of their vectors, differ.
    """
    if labels is not None:
        own = store.labels
        if own is None or own.classes != labels.classes or own.length != labels.length:
            held = "no labels" if own is None else own.describe()
            raise UserError(f"{store.path} has {held}, and the training data {labels.describe()}: prepare both alike")
        store.labels = labels
    return store


class ConditionSource(Protocol):
    """Any source of conditions for images to be sampled."""

    def of(self, indices: Sequence[int], device: torch.device) -> Condition:
        """Return the condition of images with these numbers."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of images to be sampled: image i has row i modulo their number.

    labels (M, label_dim), known (M, K + 1, H, W) as `with_known` makes it; None: nothing.
    """

    labels: Tensor | None = None
    known: Tensor | None = None
    guidance: float = 1.0

    def of(self, indices: Sequence[int], device: torch.device) -> Condition:
        """The condition of images with these numbers."""
        labels, known = (
            None if rows is None else _rows(rows, indices).to(device) for rows in (self.labels, self.known)
        )
        return Condition(labels, known, self.guidance)


NO_CONDITIONS = Conditions()

# The conditions of images of a size.
ConditionsAt = Callable[[Size], Conditions]


def unconditional(size: Size) -> Conditions:
    """Return no conditions, at any size."""
    return NO_CONDITIONS


class GivenConditions(TypedDict, total=False):
    """Conditions of restored images as callers pass them; without one, or with None, nothing is known of it."""

    label: str | None
    vector: Sequence[float] | None
    condition: Any
    condition_weight: float | None


def conditions_for(
    labels: LabelDescription | None,
    known_field: FieldDescription | None,
    size: Size,
    *,
    label: str | None = None,
    vector: Sequence[float] | None = None,
    condition: Any = None,
    guidance: float | None = None,
    weight_option: str = "guidance",
) -> Conditions:
    """Return what images of a size are conditioned on, from the options of a caller.

    labels: those of the run. known_field: its condition channels. label: a class's name, or "all": one after the other.
    vector: its numbers, in units. condition: an array (K, H, W), or one for each image (B, K, H, W), in units, of any
    size; NaN where nothing is known. guidance: of the classifier-free kind, 1 by default. weight_option: the name that
    callers know it by.
    Raises OptionError for what the run does not know.
    """
    rows = None
    if label is not None:
        rows = _class_rows(labels, label)
    if vector is not None:
        if label is not None:
            raise OptionError("vector", _listed(vector), "does not go with a label")
        rows = _vector_rows(labels, vector)
    known = None if condition is None else _known(known_field, condition, size)
    if guidance is not None and rows is None and known is None:
        raise OptionError(weight_option, f"{guidance:g}", "goes with label, vector or condition")
    weight = 1.0 if guidance is None else float(guidance)
    check_weight(weight_option, weight)
    return Conditions(rows, known, weight)


def check_weight(option: str, weight: float) -> None:
    """Raise OptionError for a weight of classifier-free guidance that is none."""
    if not 0 <= weight < math.inf:
        raise OptionError(option, f"{weight:g}", "want 0 (unconditional), 1 (conditional) or more")


def _class_rows(labels: LabelDescription | None, label: str) -> Tensor:
    if labels is None or not labels.classes:
        kind = "without labels" if labels is None else f"with {labels.describe()}: give vector"
        raise OptionError("label", label, f"the run was trained {kind}")
    if label == ALL_CLASSES and ALL_CLASSES not in labels.classes:
        return torch.eye(len(labels.classes))
    if label not in labels.classes:
        names = ", ".join(labels.classes[:_SHOWN]) + (", …" if len(labels.classes) > _SHOWN else "")
        raise OptionError("label", label, f"the run knows {names}, and {ALL_CLASSES} for one after the other")
    return labels.row((float(labels.classes.index(label)),))[None]


def _vector_rows(labels: LabelDescription | None, vector: Sequence[float]) -> Tensor:
    if labels is None or labels.classes:
        kind = "without labels" if labels is None else f"with {labels.describe()}: give label"
        raise OptionError("vector", _listed(vector), f"the run was trained {kind}")
    if len(vector) != labels.length or not all(map(math.isfinite, vector)):
        raise OptionError("vector", _listed(vector), f"want {labels.length} finite numbers, as the run's images have")
    return labels.row(tuple(map(float, vector)))[None]


def _known(field: FieldDescription | None, condition: Any, size: Size) -> Tensor:
    if field is None:
        raise OptionError("condition", None, "the run was trained without condition channels")
    array = condition.detach().cpu().numpy() if isinstance(condition, Tensor) else np.asarray(condition)
    array = array[None] if array.ndim == 2 else array
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[1] != field.channels or array.dtype.kind not in "buif" or not array.size:
        channels = f"{field.channels} channels, (K, H, W) or one for each image"
        raise OptionError("condition", None, f"an array of shape {array.shape} and type {array.dtype}: want {channels}")
    if np.isinf(array).any():
        raise OptionError("condition", None, "infinite values: put NaN where nothing is known")
    seen = (field.normalised(resized_nan(one.astype(np.float32), size))[None] for one in array)
    return torch.cat([with_known(image) for image in seen])


def _rows(values: Tensor, indices: Sequence[int]) -> Tensor:
    return values[torch.tensor([index % len(values) for index in indices])]


def _listed(vector: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in vector)


def _origin(config: Config) -> str:
    return config.data.path or "the embedded demo set"

"""Evaluation of fields: generated ones, or those of a folder, compared with real ones in their units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.batches import first_batches
from infdiff.data.extent import Extent
from infdiff.data.field_folder import FieldFolder
from infdiff.data.fields import FieldDescription
from infdiff.data.image_set import ImageSet
from infdiff.data.prepare_fields import fields_of
from infdiff.data.sources import Source, open_source
from infdiff.errors import OptionError, UserError
from infdiff.evaluation.examples import examples_of_fields
from infdiff.evaluation.generated import ImageMaker
from infdiff.evaluation.real_conditions import CONDITIONS
from infdiff.evaluation.real_images import StoredImages
from infdiff.evaluation.results import Evaluation
from infdiff.evaluation.tasks import DENOISE, conditioned, enough, score_denoised
from infdiff.images.sample_folder import SHEET
from infdiff.metrics.compare import FEWEST
from infdiff.metrics.compare_fields import compare_fields
from infdiff.metrics.fields import FieldStatistics, default_distances, describe_fields

_BATCH = 64
TOGETHER = "all channels"
FIELD_TASKS = ("generate", DENOISE)
_SHOWN = 8


@dataclass(frozen=True)
class FieldComparison:
    """Comparison of sets of fields with the real ones of an evaluation.

    distances: of the variogram in the unit of the field's extent, and without one in pixels of the size compared at;
    () for 1, 2, 4, ... pixels up to half of the shorter side.
    """

    evaluation: Evaluation
    field: FieldDescription  # of the fields that are compared
    distances: tuple[float, ...] = ()

    def extent(self, size: Size) -> Extent:
        """Return the width of fields of a size, in pixels where nothing else is known."""
        return self.field.extent or Extent(size[1], "pixels")

    def pixels(self, size: Size) -> tuple[int, ...]:
        """Return the distances in pixels of fields that are asked for at a size.

        Raises OptionError for those that are no whole numbers of pixels, or beyond the fields.
        """
        at = self.evaluation.real.chosen.fitting(size)
        if not self.distances:
            return default_distances(at)
        extent = self.extent(at)
        found = tuple(extent.pixels(distance, at) for distance in self.distances)
        if max(found) >= min(at):
            raise OptionError(
                "distances", f"{max(self.distances):g}", f"fields of {format_size(at)} pixels are compared"
            )
        return found

    def score(self, fields: FieldFolder, size: Size, about: Mapping[str, Any] | None = None) -> None:
        """Add a row for each channel of fields, FEWEST or more, and one for all channels together.

        They are compared at `size`, or at the largest size that the real ones reach. about: more columns of the rows.
        """
        evaluation, stored = self.evaluation, self.evaluation.real.chosen
        at = stored.fitting(size)
        if at != size:
            evaluation.warn(
                f"size: the real fields hold {format_size(at)} pixels: fields of {format_size(size)} are compared "
                "reduced to that, and detail beyond it is not judged"
            )
        distances = self.pixels(size)
        found = describe_fields(fields.batches(at, _BATCH), len(fields), distances, evaluation.on_images)
        true = describe_fields(self._real(stored, at), len(stored), distances, evaluation.on_images)
        extent = self.extent(at)
        made, real = (
            replace(one, distances=tuple(extent.distance(pixels, at) for pixels in distances)) for one in (found, true)
        )
        channels, joint = compare_fields(made, real, self._metrics(made, real))
        row: dict[str, Any] = {"size": format_size(size), "at": format_size(at), "images": made.count}
        row |= {"real": real.count} | dict(about or {})
        labels = [self.field.label(channel) for channel in range(self.field.channels)]
        evaluation.results += [
            {"what": what, "channel": what} | row | found for what, found in zip(labels, channels, strict=True)
        ]
        if joint:
            evaluation.results.append({"what": TOGETHER} | row | joint)
        if evaluation.keep_examples:
            first = torch.stack([fields.read(i, size) for i in range(min(_SHOWN, len(fields)))])
            beside = next(self._real(stored.first(_SHOWN), at))
            evaluation.examples.append(examples_of_fields(first, beside, self.field, size, (made, real), extent.unit))

    def _real(self, stored: StoredImages, size: Size) -> Iterator[Tensor]:
        """Batches of real fields, of the channels that are compared: those of a condition come after them."""
        return (batch[:, : self.field.channels] for batch in batches_in_units(stored, size))

    def _metrics(self, made: FieldStatistics, real: FieldStatistics) -> list[str]:
        """The metrics that can be told; warns about a spectrum of few fields, or of none."""
        metrics = list(self.evaluation.metrics)
        if "spectrum" not in metrics:
            return metrics
        for whose, found in (("compared", made), ("real", real)):
            if found.complete < found.count:
                few = found.complete < FEWEST
                remedy = "the spectrum is left out: name complete ones with --data" if few else "the spectrum is theirs"
                self.evaluation.warn(
                    f"missing pixels: {found.complete} of {found.count} {whose} fields have none: {remedy}"
                )
        return [name for name in metrics if name != "spectrum" or min(made.complete, real.complete) >= FEWEST]


def batches_in_units(stored: StoredImages, size: Size) -> Iterator[Tensor]:
    """Yield batches (B, C, H, W) float32 of stored fields, NaN where missing, cropped and resized."""
    for store, indices in stored.pieces:
        assert store.field is not None
        for batch in first_batches(ImageSet(store, indices, size), _BATCH, len(indices), torch.device("cpu")):
            yield store.field.in_units(batch)


def holds_fields(path: str) -> bool:
    """Return True for a folder or zip of fields, False for one of RGB images. Raises UserError for one of neither."""
    return fields_of(_without_pictures(path)) is not None


def open_fields(path: str, field: FieldDescription) -> FieldFolder:
    """Open the fields of a folder or zip, whose pictures are left out. Raises UserError when they cannot be used."""
    folder = FieldFolder.open(_without_pictures(path), field.channels)
    if len(folder) < FEWEST:
        raise UserError(f"{path} holds {len(folder)} fields: comparing takes at least {FEWEST}")
    return folder


def check_field_options(task: str, given: Mapping[str, object]) -> None:
    """Raise OptionError for a task or an option that fields cannot be evaluated with. given: options and values."""
    if task not in FIELD_TASKS:
        problem = f"compares features of RGB images: of fields --task {' and '.join(FIELD_TASKS)} are left"
        raise OptionError("task", task, problem)
    for name, value in given.items():
        if value:
            raise OptionError(name, value if isinstance(value, str | int) else None, "goes with RGB images, not fields")


def score_field_run(
    comparison: FieldComparison,
    maker: ImageMaker,
    task: str,
    sizes: Sequence[Size],
    count: int,
    *,
    latents: str,
    conditions: str = CONDITIONS[0],
    weight: float = 1.0,
) -> None:
    """Score a run of fields on one of FIELD_TASKS.

    latents: of the latent model, or those of real fields. conditions: none, or those of the real fields, with weight.
    """
    evaluation = comparison.evaluation
    if task == DENOISE:
        score_denoised(evaluation, maker.run, sizes, count, maker.seed)
        return
    if latents == "real":
        maker.run.require_encoder()
    for size in sizes:  # before anything is drawn
        comparison.pixels(size)
    for size in sizes:
        if latents == "real":
            made = maker.decoded(evaluation.real.train.spread(count), size)
        else:
            made = maker.generated(size, *conditioned(evaluation, count, conditions), weight)
        if made is not None and enough(evaluation, made, "generated"):
            comparison.score(made.fields, size, made.about)


def score_field_folder(comparison: FieldComparison, fields: FieldFolder, sizes: Sequence[Size]) -> None:
    """Score fields at their own size, or reduced to `sizes`. Raises OptionError for a size beyond theirs."""
    for size in sizes or [fields.size]:
        if size[0] > fields.size[0] or size[1] > fields.size[1]:
            raise OptionError("res", format_size(size), f"the fields have {format_size(fields.size)} pixels")
        comparison.score(fields, size)


def _without_pictures(path: str) -> Source:
    """Return the images of a folder or zip, without those that only show fields of the same name."""
    source = open_source(path)
    stems = {name.rpartition(".")[0] for name in source.names if not name.lower().endswith(".png")}
    shown = {name for name in source.names if name.lower().endswith(".png") and name.rpartition(".")[0] in stems}
    if shown:
        shown |= {name for name in source.names if name.rpartition("/")[2] == SHEET}
    return replace(source, names=tuple(name for name in source.names if name not in shown))

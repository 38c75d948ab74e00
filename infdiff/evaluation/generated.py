"""Images that a run generates for an evaluation: kept in a folder, and distributed over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.field_folder import FieldFolder
from infdiff.data.fields import FieldDescription
from infdiff.data.image_folder import ImageFolder
from infdiff.data.sources import FolderSource
from infdiff.data.store import to_tensor
from infdiff.evaluation.generation_cost import GenerationCost, measured
from infdiff.evaluation.real_conditions import RealConditions
from infdiff.evaluation.real_images import StoredImages
from infdiff.images.field_files import save_field
from infdiff.images.resumable_folder import fill_folder, filled, image_names, open_folder, save_rounded
from infdiff.images.transforms import resize
from infdiff.methods.sampling import SamplingOptions, check_enlarging, default_batch, tile_rows
from infdiff.methods.sizes import training_size
from infdiff.processes import ALONE, Place
from infdiff.runs.conditions import NO_CONDITIONS, ConditionSource
from infdiff.runs.editing import enlarge, enlarging_method
from infdiff.runs.trained import TrainedModel

FIELD_SUFFIX = ".npy"
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class GeneratedImages:
    """Images of a run in a folder: numbers of the finite ones, and of the broken ones, which hold non-finite pixels."""

    folder: Path
    size: Size
    finite: list[int]
    broken: list[int]
    cost: GenerationCost | None = None
    channels: int = 0  # of fields; 0 for RGB images

    @property
    def about(self) -> dict[str, Any]:
        """Columns of a row of results other than its metrics."""
        return {"broken": self.broken} | (self.cost.record() if self.cost is not None else {})

    @property
    def images(self) -> ImageFolder:
        """The finite images."""
        return ImageFolder(FolderSource(str(self.folder), image_names(self.finite)), self.size, ("PNG",))

    @property
    def fields(self) -> FieldFolder:
        """The finite fields, in units."""
        names = image_names(self.finite, FIELD_SUFFIX)
        return FieldFolder(FolderSource(str(self.folder), names), self.channels, self.size)

    def take(self, numbers: Sequence[int]) -> Tensor:
        """Return (B, 3, H, W) uint8, finite images by their numbers."""
        source = FolderSource(str(self.folder), image_names(numbers))
        return torch.cat(list(ImageFolder(source, self.size, ("PNG",)).batches(self.size, len(numbers))))


@dataclass(frozen=True)
class ImageMaker:
    """Generates images with a run and its sampling options; image i depends on the seed and i alone.

    This process generates its share of them. Process 0 then waits for the others and returns all images, the other
    processes return None.
    """

    run: TrainedModel
    parent: Path
    seed: int
    options: SamplingOptions
    batch: int | None = None
    place: Place = ALONE
    on_images: Callable[[int], object] = lambda count: None

    def generated(
        self, size: Size, count: int, given: StoredImages | None = None, weight: float = 1.0
    ) -> GeneratedImages | None:
        """Sample new images; given: those whose conditions they have, guided with this weight."""
        options = self._tiled(size)
        conditions: ConditionSource = NO_CONDITIONS
        settings = options.record(self.run.method) | self.run.record_latents()
        if given is not None:
            sampled = options.sampled_at(size, training_size(self.run.config))
            conditions = RealConditions(self.run, given, sampled, weight)
            settings |= {"conditions": given.fingerprint, "weight": weight}

        def make(numbers: Sequence[int]) -> Tensor:
            return self.run.sample(numbers, size, seed=self.seed, options=options, conditions=conditions, rounded=False)

        return self._made("generate", size, count, settings, make)

    def reconstructed(self, truth: StoredImages, size: Size) -> GeneratedImages | None:
        """Encode real images of a size, and decode their latents."""
        options = self._tiled(size)
        record = options.record(self.run.method)
        settings = {name: value for name, value in record.items() if name != "truncation"}

        def make(numbers: Sequence[int]) -> Tensor:
            images = truth.take(numbers, size)
            return self.run.reconstruct(images, options=options, seed=self.seed, indices=numbers, rounded=False)

        return self._made("reconstruct", size, len(truth), settings | {"truth": truth.fingerprint}, make)

    def decoded(self, real: StoredImages, size: Size) -> GeneratedImages | None:
        """Sample an image of each real image's latent, which is of its training size."""
        options, trained = self._tiled(size), training_size(self.run.config)
        settings = {name: value for name, value in options.record(self.run.method).items() if name != "truncation"}

        def make(numbers: Sequence[int]) -> Tensor:
            z = self.run.encode(real.take(numbers, trained))
            return self.run.decode(z, size, options=options, seed=self.seed, indices=numbers, rounded=False)

        return self._made("decode", size, len(real), settings | {"real": real.fingerprint}, make)

    def super_resolved(
        self,
        truth: StoredImages,
        small: Size,
        size: Size,
        method: str | None = None,
        guidance: str | None = None,
    ) -> GeneratedImages | None:
        """Reduce real images to `small`, and super-resolve them to `size`; method: by default the run's."""
        method = method or enlarging_method(self.run, size)
        check_enlarging(small, f"{size[0]}x{size[1]}")
        options = self._tiled(size, replace(self.options, upscale="none"))

        def make(numbers: Sequence[int]) -> Tensor:
            images = reduced(truth.take(numbers, size), small)
            return enlarge(
                self.run,
                images,
                size,
                options=options,
                method=method,
                guidance=guidance,
                seed=self.seed,
                indices=numbers,
                rounded=False,
            )

        settings = {
            "method": method,
            "steps": options.steps,
            "deblur": options.deblur,
            "from": format_size(small),
            "truth": truth.fingerprint,
        }
        # Images by gradients that were made before there was another guidance keep their folder.
        settings |= {"guidance": guidance} if guidance == "projection" else {}
        gradient = method == "windows" or guidance == "gradient"
        batch = default_batch(self.run.method, size, guided=gradient)
        return self._made("superres", size, len(truth), settings, make, batch)

    def _tiled(self, size: Size, options: SamplingOptions | None = None) -> SamplingOptions:
        """Sampling options, by default the maker's, with tiles for a size."""
        options = self.options if options is None else options
        sampled = options.sampled_at(size, training_size(self.run.config))
        return replace(options, tile=tile_rows(self.run.method, sampled, device=self.run.device))

    def _made(
        self,
        task: str,
        size: Size,
        count: int,
        settings: dict[str, Any],
        make: Callable[[Sequence[int]], Tensor],
        batch: int | None = None,
    ) -> GeneratedImages | None:
        settings = settings | {"task": task, "size": format_size(size), "seed": self.seed}
        settings |= {"step": self.run.step, "weights": self.run.folder.fingerprint(self.run.step)}
        folder = open_folder(self.parent, settings)
        mine = self.place.share(range(count))
        batch = self.batch or batch or default_batch(self.run.method, size, self.options)
        weights = sum(self.run.parameter_counts.values()) * _FLOAT_BYTES
        timed = measured(make, folder, rank=self.place.rank, device=self.run.device, weights=weights)
        field = self.run.field
        suffix, save, channels = ".png", save_rounded, 0
        if field is not None:
            suffix, save, channels = FIELD_SUFFIX, partial(_save_in_units, field), field.channels
        fill_folder(timed, folder, indices=mine, batch=batch, on_images=self.on_images, suffix=suffix, save=save)
        if not self.place.first:
            return None
        finite, broken = filled(folder, count, suffix=suffix)
        return GeneratedImages(folder, size, finite, broken, GenerationCost.read(folder), channels)


def _save_in_units(field: FieldDescription, image: Tensor, path: Path) -> None:
    save_field(field.in_units(image[None])[0].numpy(), path)


def reduced(images: Tensor, size: Size) -> Tensor:
    """Reduce images (B, 3, H, W) uint8 to a smaller size, with the antialiased filter of the data sets."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.stack([to_tensor(resize(Image.fromarray(array), size)) for array in arrays])

"""Rows of results: each compares a set of images at a size with real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.errors import OptionError
from infdiff.evaluation.examples import ExampleSheet, examples_of_images, examples_of_pairs
from infdiff.evaluation.patches import PatchCutter
from infdiff.evaluation.real_images import RealImages, StoredImages, describe_real, describe_real_patches
from infdiff.evaluation.statistics import METRICS_OF_STATISTICS, PublishedStatistics
from infdiff.metrics import corruptions
from infdiff.metrics.compare import (
    FEWEST,
    METRICS,
    Comparison,
    Description,
    caveats,
    compare_by_each,
    describe,
    named_by,
)
from infdiff.metrics.distances import frechet_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.perceptual import PerceptualDistance
from infdiff.metrics.similarity import psnr, ssim

_BATCH = 64

# (B, 3, H, W) uint8 images by their numbers.
Images = Callable[[Sequence[int]], Tensor]


@dataclass
class Evaluation:
    """Results so far, one dictionary a row, and warnings about them.

    Every row holds: what, size (as requested), at (the size compared at), images; then its metrics by name, those of
    all networks but the first with that of the network. cutter: cuts patches that are compared, too, if given.
    perceptual: LPIPS, for pairs, if given.
    examples: images shown next to the rows in a report, if `keep_examples` is set.
    """

    networks: Sequence[FeatureNetwork]
    against: RealImages | PublishedStatistics
    metrics: Sequence[str] = tuple(METRICS)
    on_images: Callable[[int], object] = lambda count: None
    keep_examples: bool = False
    cutter: PatchCutter | None = None
    perceptual: PerceptualDistance | None = None
    examples: list[ExampleSheet] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def real(self) -> RealImages:
        """The real images compared with. Raises OptionError where there are statistics alone."""
        if isinstance(self.against, PublishedStatistics):
            raise OptionError("data", self.against.path, "holds statistics alone: name the real images")
        return self.against

    def require_patches(self, sizes: Sequence[Size]) -> None:
        """Raise OptionError when the patches do not fit into images of the sizes, as they are compared."""
        if self.cutter is not None:
            for size in sizes:
                self.cutter.require_within(self.real.chosen.fitting(size))

    def warn(self, *lines: str) -> None:
        """Add the lines that are new."""
        self.warnings += [line for line in lines if line not in self.warnings]

    def score_images(self, images: ImageFolder, size: Size, what: str, about: Mapping[str, Any] | None = None) -> None:
        """Add a row for images, FEWEST or more, at `size` or at the largest size that the real images reach.

        about: further columns of the row.
        """
        if isinstance(self.against, PublishedStatistics):
            self._score_against_statistics(self.against, images, size, what, about)
            return
        at = self.real.chosen.fitting(size)
        if ("JPEG" in images.formats) != ("jpeg" in self.real.chosen.formats):
            kinds = f"{'/'.join(images.formats)}, the real ones {'/'.join(self.real.chosen.formats)}"
            self.warn(f"format: the images are {kinds}: traces of compression count as a difference")
        if at != size:
            self.warn(
                f"size: the real images hold {format_size(at)} pixels: images of {format_size(size)} are compared "
                "reduced to that, and detail beyond it is not judged"
            )
        real = self._real(self.real.chosen, at)
        train: list[Tensor] | list[None] = [None] * len(self.networks)
        validation: list[Tensor] | list[None] = train
        if "memorisation" in self.metrics and self.real.train.fitting(at) == at == self.real.validation.fitting(at):
            train = [description.features for description in self._real(self.real.train, at)]
            if len(self.real.validation) > 1:
                validation = [description.features for description in self._real(self.real.validation, at)]
        described = describe(self.networks, images.batches(at, _BATCH), self.on_images)
        sets = [Comparison(*each) for each in zip(described, real, train, validation, strict=True)]
        patches = self._compare_patches(images, at)
        self._add(sets, what, size, at, patches | dict(about or {}))
        if self.keep_examples:
            known = None if train[0] is None else (self.real.train, train[0])
            self.examples.append(examples_of_images(images, size, what, described[0], real[0], known, at))

    def score_corruptions(self, size: Size) -> None:
        """Add rows for one half of the real images against the other, held-out images, and each corruption."""
        stored = self.real.chosen
        if stored.fitting(size) != size:
            held = format_size(stored.fitting(size))
            raise OptionError("res", format_size(size), f"the real images hold {held} pixels")
        real = self._real(stored, size)
        first, second = ([Description.of(one.features[i::2], one.spectra[i::2]) for one in real] for i in (0, 1))
        self._add(_compared(first, second), "every other image", size, size)
        if self.real.split == "train" and len(self.real.validation) >= FEWEST:
            self._add(_compared(self._real(self.real.validation, size), real), "held-out images", size, size)
        for name, function in corruptions.CORRUPTIONS.items():
            corrupted = describe(self.networks, map(function, stored.batches(size)), self.on_images)
            self._add(_compared(corrupted, real), name, size, size)

    def score_pairs(
        self, truth: Images, methods: Mapping[str, Images], numbers: Sequence[int], size: Size, about: Mapping[str, Any]
    ) -> None:
        """Add a row for the images of each method, compared with the truth of the same numbers, at least two.

        about: further columns of the first method's row.
        """
        real = describe(self.networks, map(truth, _chunks(numbers)), self.on_images)
        for place, (name, images_of) in enumerate(methods.items()):
            made = describe(self.networks, map(images_of, _chunks(numbers)), self.on_images)
            pairs = [(images_of(chunk), truth(chunk)) for chunk in _chunks(numbers)]
            at = format_size(size)
            row: dict[str, Any] = {"what": name, "size": at, "at": at, "images": len(numbers)}
            row |= dict(about) if place == 0 else {"broken": about["broken"]}
            row["psnr"] = float(torch.cat([psnr(*pair) for pair in pairs]).mean())
            row["ssim"] = float(torch.cat([ssim(*pair) for pair in pairs]).mean())
            if self.perceptual is not None:
                row["lpips"] = sum(self.perceptual(*pair) for pair in pairs) / len(numbers)
            for order, network in enumerate(self.networks):
                found = {"feature": float((made[order].features - real[order].features).norm(dim=1).mean())}
                found["frechet"] = frechet_distance(made[order].gaussian, real[order].gaussian)
                row |= named_by(network, found) if order else found
            self.results.append(row)
        self._warn_of_few({"compared images": len(numbers)})
        if self.keep_examples:
            self.examples.append(examples_of_pairs(truth, methods, numbers, size))

    def add_losses(self, losses: Mapping[str, float], rate: float, size: Size, count: int) -> None:
        """Add a row for losses by name on one of every `rate` pixels of `count` images."""
        what, at = "all pixels" if rate == 1 else f"1/{rate:g} of the pixels", format_size(size)
        self.results.append({"what": what, "size": at, "at": at, "images": count, **losses})

    def _score_against_statistics(
        self,
        statistics: PublishedStatistics,
        images: ImageFolder,
        size: Size,
        what: str,
        about: Mapping[str, Any] | None,
    ) -> None:
        others = ", ".join(name for name in METRICS if name not in METRICS_OF_STATISTICS)
        self.warn(f"statistics: {statistics.path} holds no images: {others} need them, and are left out")
        at = format_size(size)
        row: dict[str, Any] = {"what": what, "size": at, "at": at, "images": len(images)} | dict(about or {})
        described = describe(self.networks, images.batches(size, _BATCH), self.on_images)
        for order, (network, description) in enumerate(zip(self.networks, described, strict=True)):
            found = {"frechet": frechet_distance(description.gaussian, statistics.gaussian)}
            row |= named_by(network, found) if order else found
        self.results.append(row)
        self._warn_of_few({"compared images": len(images)})
        if self.keep_examples:
            self.examples.append(examples_of_images(images, size, what, described[0], None, None, size))

    def _compare_patches(self, images: ImageFolder, size: Size) -> dict[str, float]:
        """Return the distances of patches of the images to as many of the real ones, if patches are asked for."""
        if self.cutter is None:
            return {}
        count = self.cutter.count(len(images), size)
        patches = self.cutter.batches(
            lambda numbers: torch.stack([images.read(number, size) for number in numbers]), len(images), size, count
        )
        made = describe(self.networks, patches, self.on_images)
        stored = self.real.chosen
        real = [
            describe_real_patches(network, stored, size, self.cutter, count, self.on_images)
            for network in self.networks
        ]
        self._warn_of_few({"patches": count})
        found = compare_by_each(self.networks, _compared(made, real), ("frechet", "kid"))
        return {"patches": count} | {f"patch_{name}": value for name, value in found.items()}

    def _add(
        self, sets: Sequence[Comparison], what: str, size: Size, at: Size, about: Mapping[str, Any] | None = None
    ) -> None:
        counts = {"compared images": len(sets[0].images.features), "real images": len(sets[0].real.features)}
        row: dict[str, Any] = {"what": what, "size": format_size(size), "at": format_size(at)}
        row |= {"images": counts["compared images"], "real": counts["real images"]} | dict(about or {})
        self.results.append(row | compare_by_each(self.networks, sets, self.metrics))
        if "frechet" in self.metrics:
            self._warn_of_few(counts)

    def _warn_of_few(self, counts: dict[str, int]) -> None:
        for network in self.networks:
            self.warn(*caveats(network, counts))

    def _real(self, stored: StoredImages, size: Size) -> list[Description]:
        return [describe_real(network, stored, size, self.on_images) for network in self.networks]


def _compared(images: Sequence[Description], real: Sequence[Description]) -> list[Comparison]:
    return [Comparison(*each) for each in zip(images, real, strict=True)]


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _BATCH] for start in range(0, len(numbers), _BATCH))

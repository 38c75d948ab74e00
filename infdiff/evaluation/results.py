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
from infdiff.evaluation.real_images import RealImages, StoredImages, describe_real
from infdiff.metrics import corruptions
from infdiff.metrics.compare import FEWEST, METRICS, Comparison, Description, caveats, compare, describe
from infdiff.metrics.distances import frechet_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.similarity import psnr, ssim

_BATCH = 64

# (B, 3, H, W) uint8 images by their numbers.
Images = Callable[[Sequence[int]], Tensor]


@dataclass
class Evaluation:
    """Results so far, one dictionary a row, and warnings about them.

    Every row holds: what, size (as requested), at (the size compared at), images; then its metrics by name. examples:
    images shown next to the rows in a report, if `keep_examples` is set.
    """

    network: FeatureNetwork
    real: RealImages
    metrics: Sequence[str] = tuple(METRICS)
    on_images: Callable[[int], object] = lambda count: None
    keep_examples: bool = False
    examples: list[ExampleSheet] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, *lines: str) -> None:
        """Add the lines that are new."""
        self.warnings += [line for line in lines if line not in self.warnings]

    def score_images(self, images: ImageFolder, size: Size, what: str, about: Mapping[str, Any] | None = None) -> None:
        """Add a row for images, FEWEST or more, at `size` or at the largest size that the real images reach.

        about: further columns of the row.
        """
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
        train = validation = None
        if "memorisation" in self.metrics and self.real.train.fitting(at) == at == self.real.validation.fitting(at):
            train = self._real(self.real.train, at).features
            validation = self._real(self.real.validation, at).features if len(self.real.validation) > 1 else None
        described = describe(self.network, images.batches(at, _BATCH), self.on_images)
        self._add(Comparison(described, real, train, validation), what, size, at, about)
        if self.keep_examples:
            known = None if train is None else (self.real.train, train)
            self.examples.append(examples_of_images(images, size, what, described, real, known, at))

    def score_corruptions(self, size: Size) -> None:
        """Add rows for one half of the real images against the other, held-out images, and each corruption."""
        stored = self.real.chosen
        if stored.fitting(size) != size:
            held = format_size(stored.fitting(size))
            raise OptionError("res", format_size(size), f"the real images hold {held} pixels")
        real = self._real(stored, size)
        halves = [Description.of(real.features[i::2], real.spectra[i::2]) for i in (0, 1)]
        self._add(Comparison(halves[0], halves[1]), "every other image", size, size)
        if self.real.split == "train" and len(self.real.validation) >= FEWEST:
            self._add(Comparison(self._real(self.real.validation, size), real), "held-out images", size, size)
        for name, function in corruptions.CORRUPTIONS.items():
            corrupted = describe(self.network, map(function, stored.batches(size)), self.on_images)
            self._add(Comparison(corrupted, real), name, size, size)

    def score_pairs(
        self, truth: Images, methods: Mapping[str, Images], numbers: Sequence[int], size: Size, about: Mapping[str, Any]
    ) -> None:
        """Add a row for the images of each method, compared with the truth of the same numbers, at least two.

        about: further columns of the first method's row.
        """
        real = describe(self.network, map(truth, _chunks(numbers)), self.on_images)
        for place, (name, images_of) in enumerate(methods.items()):
            made = describe(self.network, map(images_of, _chunks(numbers)), self.on_images)
            pairs = [(images_of(chunk), truth(chunk)) for chunk in _chunks(numbers)]
            at = format_size(size)
            row: dict[str, Any] = {"what": name, "size": at, "at": at, "images": len(numbers)}
            row |= dict(about) if place == 0 else {"broken": about["broken"]}
            row["psnr"] = float(torch.cat([psnr(*pair) for pair in pairs]).mean())
            row["ssim"] = float(torch.cat([ssim(*pair) for pair in pairs]).mean())
            row["feature"] = float((made.features - real.features).norm(dim=1).mean())
            row["frechet"] = frechet_distance(made.gaussian, real.gaussian)
            self.results.append(row)
        self.warn(*caveats(self.network, {"compared": len(numbers)}))
        if self.keep_examples:
            self.examples.append(examples_of_pairs(truth, methods, numbers, size))

    def add_losses(self, losses: Mapping[str, float], rate: float, size: Size, count: int) -> None:
        """Add a row for losses by name on one of every `rate` pixels of `count` images."""
        what, at = "all pixels" if rate == 1 else f"1/{rate:g} of the pixels", format_size(size)
        self.results.append({"what": what, "size": at, "at": at, "images": count, **losses})

    def _add(self, sets: Comparison, what: str, size: Size, at: Size, about: Mapping[str, Any] | None = None) -> None:
        counts = {"compared": len(sets.images.features), "real": len(sets.real.features)}
        row = {"what": what, "size": format_size(size), "at": format_size(at)}
        row |= {"images": counts["compared"], "real": counts["real"]} | dict(about or {})
        self.results.append(row | compare(sets, self.metrics))
        if "frechet" in self.metrics:
            self.warn(*caveats(self.network, counts))

    def _real(self, stored: StoredImages, size: Size) -> Description:
        return describe_real(self.network, stored, size, self.on_images)


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _BATCH] for start in range(0, len(numbers), _BATCH))

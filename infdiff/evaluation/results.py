"""How good images are beside real ones: rows of results, each for a set of images at a size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.errors import UserError
from infdiff.evaluation.examples import look_at_pairs, look_at_pictures
from infdiff.evaluation.looks import Look
from infdiff.evaluation.real_images import Part, RealImages, describe_real
from infdiff.metrics import corruptions
from infdiff.metrics.compare import FEWEST, METRICS, Described, Subject, compare, describe, doubts
from infdiff.metrics.distances import frechet_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.similarity import psnr, ssim

_BATCH = 64

# (B, 3, H, W) uint8 images by their numbers.
Images = Callable[[Sequence[int]], Tensor]


@dataclass
class Evaluation:
    """Results so far, one dictionary a row, and what has to be known to believe them.

    Every row says: what, size (as asked), at (the size compared at), images; then its metrics by name. looks: what a
    person looks at beside the rows, where `keep_looks` is set.
    """

    network: FeatureNetwork
    real: RealImages
    metrics: Sequence[str] = tuple(METRICS)
    on_images: Callable[[int], object] = lambda count: None
    keep_looks: bool = False
    looks: list[Look] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, *lines: str) -> None:
        """Each line once."""
        self.warnings += [line for line in lines if line not in self.warnings]

    def score_pictures(self, pictures: ImageFolder, size: Size, what: str, **about: Any) -> None:
        """A row for pictures, FEWEST or more, brought to `size`, or to what the real images hold where that is less."""
        at = self.real.chosen.fitting(size)
        if ("JPEG" in pictures.formats) != ("jpeg" in self.real.chosen.formats):
            kinds = f"{'/'.join(pictures.formats)}, the real ones {'/'.join(self.real.chosen.formats)}"
            self.warn(f"format: the images are {kinds}: what compression took or left counts as a difference")
        if at != size:
            self.warn(
                f"size: the real images hold {format_size(at)} pixels: images of {format_size(size)} are compared "
                "reduced to that, and detail beyond it is not judged"
            )
        real = self._real(self.real.chosen, at)
        train = held_out = None
        if "memorisation" in self.metrics and self.real.train.fitting(at) == at == self.real.held_out.fitting(at):
            train = self._real(self.real.train, at).features
            held_out = self._real(self.real.held_out, at).features if len(self.real.held_out) > 1 else None
        images = describe(self.network, pictures.batches(at, _BATCH), self.on_images)
        self._add(Subject(images, real, train, held_out), what, size, at, **about)
        if self.keep_looks:
            known = None if train is None else (self.real.train, train)
            self.looks.append(look_at_pictures(pictures, size, what, images, real, known, at))

    def score_damaged(self, size: Size) -> None:
        """Rows for the real images halved, unseen and damaged: what the numbers mean."""
        part = self.real.chosen
        if part.fitting(size) != size:
            raise UserError(f"--res {format_size(size)}: the real images hold {format_size(part.fitting(size))} pixels")
        real = self._real(part, size)
        halves = [Described.of(real.features[i::2], real.spectra[i::2]) for i in (0, 1)]
        self._add(Subject(halves[0], halves[1]), "every other image", size, size)
        if self.real.split == "train" and len(self.real.held_out) >= FEWEST:
            self._add(Subject(self._real(self.real.held_out, size), real), "unseen images", size, size)
        for name, function in corruptions.DAMAGES.items():
            worse = describe(self.network, map(function, part.batches(size)), self.on_images)
            self._add(Subject(worse, real), name, size, size)

    def score_pairs(
        self, truth: Images, methods: dict[str, Images], numbers: Sequence[int], size: Size, about: dict[str, Any]
    ) -> None:
        """A row for each method's images beside the truth of the same numbers, at least two.

        about: what the first method's row says beside that.
        """
        real = describe(self.network, map(truth, _chunks(numbers)), self.on_images)
        for place, (name, images_of) in enumerate(methods.items()):
            made = describe(self.network, map(images_of, _chunks(numbers)), self.on_images)
            pairs = [(images_of(chunk), truth(chunk)) for chunk in _chunks(numbers)]
            at = format_size(size)
            row: dict[str, Any] = {"what": name, "size": at, "at": at, "images": len(numbers)}
            row |= about if place == 0 else {"broken": about["broken"]}
            row["psnr"] = float(torch.cat([psnr(*pair) for pair in pairs]).mean())
            row["ssim"] = float(torch.cat([ssim(*pair) for pair in pairs]).mean())
            row["feature"] = float((made.features - real.features).norm(dim=1).mean())
            row["frechet"] = frechet_distance(made.gaussian, real.gaussian)
            self.results.append(row)
        self.warn(*doubts(self.network, {"compared": len(numbers)}))
        if self.keep_looks:
            self.looks.append(look_at_pairs(truth, methods, numbers, size))

    def _add(self, subject: Subject, what: str, size: Size, at: Size, **about: Any) -> None:
        counts = {"compared": len(subject.images.features), "real": len(subject.real.features)}
        row = {"what": what, "size": format_size(size), "at": format_size(at)}
        row |= {"images": counts["compared"], "real": counts["real"]} | about
        self.results.append(row | compare(subject, self.metrics))
        if "frechet" in self.metrics:
            self.warn(*doubts(self.network, counts))

    def _real(self, part: Part, size: Size) -> Described:
        return describe_real(self.network, part, size, self.on_images)


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _BATCH] for start in range(0, len(numbers), _BATCH))

"""A set of images against real ones: every distance that is asked for, from what is kept of each set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.errors import UserError
from infdiff.metrics.distances import Gaussian, frechet_distance, kernel_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.neighbours import mean_distance, memorisation, nearest, precision_and_recall
from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance

# Precision and recall look at the third nearest neighbour, which at least five images have.
FEWEST = 5


class Described(NamedTuple):
    """What is kept of N images: features (N, D) and radial spectra (N, K), float32, and the features' Gaussian."""

    features: Tensor
    spectra: Tensor
    gaussian: Gaussian

    @classmethod
    def of(cls, features: Tensor, spectra: Tensor) -> Described:
        """Of two images or more."""
        return cls(features, spectra, Gaussian.fit(features))


def describe(
    network: FeatureNetwork, batches: Iterable[Tensor], on_images: Callable[[int], object] = lambda count: None
) -> Described:
    """Of batches of images (B, 3, H, W) uint8, together at least two; on_images(n) is told of every n that are done."""
    features, spectra = [], []
    for batch in batches:
        features.append(network(batch).cpu())
        spectra.append(radial_spectrum(batch.to(network.device)).float().cpu())
        on_images(len(batch))
    return Described.of(torch.cat(features), torch.cat(spectra))


class Subject(NamedTuple):
    """The two sets of a comparison; features of training and of held-out images, where they are known."""

    images: Described
    real: Described
    train: Tensor | None = None
    held_out: Tensor | None = None


def _kid(subject: Subject) -> dict[str, float]:
    mean, deviation = kernel_distance(subject.images.features, subject.real.features)
    return {"kid": mean, "kid_std": deviation}


def _precision_and_recall(subject: Subject) -> dict[str, float]:
    precision, recall = precision_and_recall(subject.images.features, subject.real.features)
    return {"precision": precision, "recall": recall}


def _diversity(subject: Subject) -> dict[str, float]:
    real = mean_distance(subject.real.features)
    return {"diversity": mean_distance(subject.images.features) / real if real else math.nan}


def _memorisation(subject: Subject) -> dict[str, float]:
    if subject.train is None:
        return {}
    found = {"nearest": float(nearest(subject.images.features, subject.train).distances.mean())}
    if subject.held_out is not None and len(subject.held_out):
        found["memorisation"] = memorisation(subject.images.features, subject.held_out, subject.train)
    return found


def _spectrum(subject: Subject) -> dict[str, float]:
    means = (described.spectra.double().mean(dim=0) for described in (subject.images, subject.real))
    return {"spectrum": spectrum_distance(*means)}


# Name -> what it adds to a result.
METRICS: dict[str, Callable[[Subject], dict[str, float]]] = {
    "frechet": lambda s: {"frechet": frechet_distance(s.images.gaussian, s.real.gaussian)},
    "kid": _kid,
    "precision-recall": _precision_and_recall,
    "diversity": _diversity,
    "spectrum": _spectrum,
    "memorisation": _memorisation,
}

LEGEND = {
    "frechet": "Fréchet distance of features, 0 for equal sets",
    "kid": "kernel distance of features, about 0 for sets of one kind",
    "precision": "part of the images among the real ones",
    "recall": "part of the real images among them",
    "diversity": "mean distance of two images, over that of two real ones",
    "spectrum": "distance of the radial power spectra in dB",
    "nearest": "mean feature distance to the nearest training image",
    "memorisation": "chance that an image is nearer to the training images than an unseen photograph: ½ none, 1 copies",
    "psnr": "peak signal-to-noise ratio in dB",
    "ssim": "structural similarity, 1 for equal images",
    "feature": "mean feature distance between an image and its truth",
}

COSTS = {
    "seconds_per_image": "seconds of a device to make an image",
    "peak_mb": "most megabytes at once to make images, weights included",
}
# Whether more is better, of those where that is so or not.
MORE_IS_BETTER = {
    "frechet": False,
    "kid": False,
    "precision": True,
    "recall": True,
    "spectrum": False,
    "psnr": True,
    "ssim": True,
    "feature": False,
}


def choose_metrics(names: Sequence[str]) -> list[str]:
    """Those named, in METRICS' order; all for none. Raises UserError naming one that is not there."""
    for name in names:
        if name not in METRICS:
            raise UserError(f"--metrics {name}: choose from {', '.join(METRICS)}")
    return [name for name in METRICS if not names or name in names]


def compare(subject: Subject, metrics: Iterable[str]) -> dict[str, float]:
    """The results of `metrics`, by name. Both sets hold at least FEWEST images."""
    results: dict[str, float] = {}
    for metric in metrics:
        results |= METRICS[metric](subject)
    return results


def doubts(network: FeatureNetwork, sets: dict[str, int]) -> list[str]:
    """What makes a Fréchet distance of so many images of each set hard to believe, a line each."""
    return [
        f"few images: {count} {name} images are fewer than the {network.dimension} features of {network.name}: the "
        "Fréchet distance is too large, and only comparable at the same counts; KID does not depend on them"
        for name, count in sets.items()
        if count <= network.dimension
    ]

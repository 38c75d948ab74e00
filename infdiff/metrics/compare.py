"""Compare a set of images with real ones: the requested metrics, from a description of each set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.errors import OptionError
from infdiff.metrics.distances import Gaussian, frechet_distance, kernel_distance
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.neighbours import mean_distance, memorisation, nearest, precision_and_recall
from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance

# Precision and recall use the third nearest neighbour, which at least five images have.
FEWEST = 5

# Noise std over signal std that losses are reported at.
NOISE_LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)


class Description(NamedTuple):
    """Description of N images: features (N, D) and radial spectra (N, K), float32, and the features' Gaussian."""

    features: Tensor
    spectra: Tensor
    gaussian: Gaussian

    @classmethod
    def of(cls, features: Tensor, spectra: Tensor) -> Description:
        """Fit the Gaussian of two images or more."""
        return cls(features, spectra, Gaussian.fit(features))


def describe(
    network: FeatureNetwork, batches: Iterable[Tensor], on_images: Callable[[int], object] = lambda count: None
) -> Description:
    """Describe batches of images (B, 3, H, W) uint8, at least two images; on_images(n) is called after each batch."""
    features, spectra = [], []
    for batch in batches:
        features.append(network(batch).cpu())
        spectra.append(radial_spectrum(batch.to(network.device)).float().cpu())
        on_images(len(batch))
    return Description.of(torch.cat(features), torch.cat(spectra))


class Comparison(NamedTuple):
    """Two sets to compare, and features of training and held-out images if they are known."""

    images: Description
    real: Description
    train: Tensor | None = None
    validation: Tensor | None = None


def _kid(sets: Comparison) -> dict[str, float]:
    mean, deviation = kernel_distance(sets.images.features, sets.real.features)
    return {"kid": mean, "kid_std": deviation}


def _precision_and_recall(sets: Comparison) -> dict[str, float]:
    precision, recall = precision_and_recall(sets.images.features, sets.real.features)
    return {"precision": precision, "recall": recall}


def _diversity(sets: Comparison) -> dict[str, float]:
    real = mean_distance(sets.real.features)
    return {"diversity": mean_distance(sets.images.features) / real if real else math.nan}


def _memorisation(sets: Comparison) -> dict[str, float]:
    if sets.train is None:
        return {}
    found = {"nearest": float(nearest(sets.images.features, sets.train).distances.mean())}
    if sets.validation is not None and len(sets.validation):
        found["memorisation"] = memorisation(sets.images.features, sets.validation, sets.train)
    return found


def _spectrum(sets: Comparison) -> dict[str, float]:
    means = (described.spectra.double().mean(dim=0) for described in (sets.images, sets.real))
    return {"spectrum": spectrum_distance(*means)}


# Metric -> the columns that it adds to a row of results.
METRICS: dict[str, Callable[[Comparison], dict[str, float]]] = {
    "frechet": lambda sets: {"frechet": frechet_distance(sets.images.gaussian, sets.real.gaussian)},
    "kid": _kid,
    "precision-recall": _precision_and_recall,
    "diversity": _diversity,
    "spectrum": _spectrum,
    "memorisation": _memorisation,
}

LEGEND = {
    "frechet": "Fréchet distance of features, 0 for equal sets",
    "kid": "kernel distance of features, about 0 for sets of one kind",
    "precision": "fraction of the images among the real ones",
    "recall": "fraction of the real images among the images",
    "diversity": "mean distance of two images, over that of two real ones",
    "spectrum": "distance of the radial power spectra in dB",
    "nearest": "mean feature distance to the nearest training image",
    "memorisation": "chance that an image is nearer to the training images than a held-out one: ½ none, 1 copies",
    "psnr": "peak signal-to-noise ratio in dB",
    "ssim": "structural similarity, 1 for equal images",
    "feature": "mean feature distance between an image and its truth",
    **{f"loss_{level:g}": f"loss of the training target, noise at {level:g} of the signal" for level in NOISE_LEVELS},
}

COSTS = {
    "seconds_per_image": "seconds of a device to generate an image",
    "peak_mb": "peak memory in megabytes while generating, weights included",
}
# Metrics for which higher is better (True) or lower is better (False); others are unranked.
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
    """Return the named metrics in the order of METRICS, by default all. Raises OptionError for an unknown name."""
    for name in names:
        if name not in METRICS:
            raise OptionError("metrics", name, f"choose from {', '.join(METRICS)}")
    return [name for name in METRICS if not names or name in names]


def compare(sets: Comparison, metrics: Iterable[str]) -> dict[str, float]:
    """Return the results of `metrics` by name. Both sets hold at least FEWEST images."""
    results: dict[str, float] = {}
    for metric in metrics:
        results |= METRICS[metric](sets)
    return results


def caveats(network: FeatureNetwork, counts: dict[str, int]) -> list[str]:
    """Return caveats about a Fréchet distance computed from this many images of each set, one line each."""
    return [
        f"few images: {count} {name} images are fewer than the {network.dimension} features of {network.name}: the "
        "Fréchet distance is too large, and only comparable at the same counts; KID does not depend on them"
        for name, count in counts.items()
        if count <= network.dimension
    ]

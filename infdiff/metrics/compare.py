"""Compare a set of images with real ones: the requested metrics, from a description of each set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
    networks: Sequence[FeatureNetwork],
    batches: Iterable[Tensor],
    on_images: Callable[[int], object] = lambda count: None,
) -> list[Description]:
    """Describe batches of images (B, 3, H, W) uint8 by each network, at least two images.

    on_images(n) is called after each batch.
    """
    features: list[list[Tensor]] = [[] for _ in networks]
    spectra = []
    for batch in batches:
        for found, network in zip(features, networks, strict=True):
            found.append(network(batch).cpu())
        spectra.append(radial_spectrum(batch.to(networks[0].device)).float().cpu())
        on_images(len(batch))
    return [Description.of(torch.cat(found), torch.cat(spectra)) for found in features]


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

# Metrics of pixels, which are the same for every feature network.
_OF_PIXELS = ("spectrum",)

LEGEND = {
    "frechet": "Fréchet distance of features, 0 for equal sets",
    "kid": "kernel distance of features, about 0 for sets of one kind",
    "precision": "fraction of the images among the real ones",
    "recall": "fraction of the real images among the images",
    "patch_frechet": "Fréchet distance of the features of patches",
    "patch_kid": "kernel distance of the features of patches",
    "diversity": "mean distance of two images, over that of two real ones",
    "spectrum": "distance of the radial power spectra in dB",
    "nearest": "mean feature distance to the nearest training image",
    "memorisation": "chance that an image is nearer to the training images than a held-out one: ½ none, 1 copies",
    "psnr": "peak signal-to-noise ratio in dB",
    "ssim": "structural similarity, 1 for equal images",
    "lpips": "learned perceptual distance (AlexNet), 0 for equal images",
    "feature": "mean feature distance between an image and its truth",
    "spectrum_error": "largest relative error of the mean power in a band of frequencies, up to half of Nyquist",
    "wasserstein": "1-Wasserstein distance of the values, in their units",
    "mean": "of the values",
    "real_mean": "of the real fields' values",
    "std": "standard deviation of the values",
    "real_std": "standard deviation of the real fields' values",
    "skewness": "of the values, 0 where they are symmetric",
    "real_skewness": "of the real fields' values",
    "variogram_error": "largest relative error of half the mean squared difference of two pixels, over their distances",
    "correlation_error": "largest error of the correlation of two channels",
    "energy": "energy distance of patches of 8 x 8 pixels in standard deviations, about 0 for sets of one kind",
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
    "patch_frechet": False,
    "patch_kid": False,
    "spectrum": False,
    "psnr": True,
    "ssim": True,
    "lpips": False,
    "feature": False,
    "spectrum_error": False,
    "wasserstein": False,
    "variogram_error": False,
    "correlation_error": False,
    "energy": False,
}


def choose_metrics(names: Sequence[str], known: Iterable[str] = tuple(METRICS)) -> list[str]:
    """Return the named metrics in the order of the known ones, by default all. Raises OptionError for another name."""
    every = list(known)
    for name in names:
        if name not in every:
            raise OptionError("metrics", name, f"choose from {', '.join(every)}")
    return [name for name in every if not names or name in names]


def compare(sets: Comparison, metrics: Iterable[str]) -> dict[str, float]:
    """Return the results of `metrics` by name. Both sets hold at least FEWEST images."""
    results: dict[str, float] = {}
    for metric in metrics:
        results |= METRICS[metric](sets)
    return results


def compare_by_each(
    networks: Sequence[FeatureNetwork], sets: Sequence[Comparison], metrics: Sequence[str]
) -> dict[str, float]:
    """Return the results of `metrics` by each network: sets[i] holds the features of networks[i]."""
    results = compare(sets[0], metrics)
    for network, others in zip(networks[1:], sets[1:], strict=True):
        found = compare(others, [metric for metric in metrics if metric not in _OF_PIXELS])
        results |= named_by(network, found)
    return results


def named_by(network: FeatureNetwork, results: dict[str, float]) -> dict[str, float]:
    """Return results by columns that name the network, as those of all networks but the first are called."""
    return {f"{name} ({network.name})": value for name, value in results.items()}


def metric_of(column: str) -> str:
    """Return the column's name without that of a network."""
    return column.partition(" (")[0]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns of rows that LEGEND explains, in its order."""
    order = {name: place for place, name in enumerate(LEGEND)}
    found = dict.fromkeys(name for row in rows for name in row if metric_of(name) in order)
    return sorted(found, key=lambda name: order[metric_of(name)])


def caveats(network: FeatureNetwork, counts: dict[str, int]) -> list[str]:
    """Return caveats about a Fréchet distance of sets, one line each; counts: their sizes by what they hold."""
    return [
        f"few images: {count} {name} are fewer than the {network.dimension} features of {network.name}: the "
        "Fréchet distance is too large, and only comparable at the same counts; KID does not depend on them"
        for name, count in counts.items()
        if count <= network.dimension
    ]

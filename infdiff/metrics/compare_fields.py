"""Compare a set of fields with real ones: the requested metrics of each channel, and of all channels together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from infdiff.metrics.fields import FieldStatistics, energy_distance, relative_errors, wasserstein_distance
from infdiff.metrics.spectrum import FIRST_RING

Results = dict[str, Any]


def _spectrum(made: FieldStatistics, real: FieldStatistics, channel: int) -> Results:
    if made.spectrum is None or real.spectrum is None:
        return {}
    bands = spectrum_bands(made.spectrum.shape[1])
    errors = {}
    for first, last in bands:
        rings = slice(first - FIRST_RING, last - FIRST_RING + 1)
        powers = (one[channel, rings].mean() for one in (made.spectrum, real.spectrum))
        errors[f"{first}-{last}" if last > first else str(first)] = float(relative_errors(*powers))
    return {"spectrum_error": max(errors.values()), "spectrum_bands": errors}


def spectrum_bands(rings: int) -> list[tuple[int, int]]:
    """Bands of frequencies (first, last) in cycles a side, both included, up to half of the Nyquist frequency.

    rings: their number in a spectrum. Two bands in each octave: 2, 3, 4-5, 6-7, 8-11, 12-15, 16-23, ...; the last one
    ends at half of Nyquist.
    """
    top = max(FIRST_RING, (rings + FIRST_RING - 1) // 2)
    starts = [FIRST_RING, 3]
    while starts[-1] <= top:
        starts.append(2 * starts[-2])
    starts = [start for start in starts if start <= top]
    return [(first, following - 1) for first, following in zip(starts, [*starts[1:], top + 1], strict=True)]


def _moments(made: FieldStatistics, real: FieldStatistics, channel: int) -> Results:
    found = {}
    for name in ("mean", "std", "skewness"):
        found[name] = float(getattr(made, name)[channel])
        found[f"real_{name}"] = float(getattr(real, name)[channel])
    return found


def _variogram(made: FieldStatistics, real: FieldStatistics, channel: int) -> Results:
    errors = relative_errors(made.variogram[channel], real.variogram[channel])
    by_distance = {
        f"{distance:g}": error
        for distance, error in zip(made.distances, errors.tolist(), strict=True)
        if error == error  # no pair of known pixels is so far apart
    }
    return {"variogram_error": max(by_distance.values()), "variogram_errors": by_distance} if by_distance else {}


def _correlation(made: FieldStatistics, real: FieldStatistics) -> Results:
    if len(made.mean) < 2:
        return {}
    return {"correlation_error": float((made.correlation - real.correlation).abs().max())}


def _energy(made: FieldStatistics, real: FieldStatistics) -> Results:
    if min(len(made.patches), len(real.patches)) < 2:
        return {}
    scale = torch.where(real.std > 0, real.std, 1.0).view(1, -1, 1, 1)
    mean = real.mean.view(1, -1, 1, 1)
    return {"energy": energy_distance(*(((one.patches - mean) / scale).flatten(1) for one in (made, real)))}


# Metric -> the columns that it adds to the row of a channel.
CHANNEL_METRICS: dict[str, Callable[[FieldStatistics, FieldStatistics, int], Results]] = {
    "spectrum": _spectrum,
    "wasserstein": lambda made, real, channel: {
        "wasserstein": wasserstein_distance(made.values[channel], real.values[channel])
    },
    "moments": _moments,
    "variogram": _variogram,
}
# Metric -> the columns that it adds to the row of all channels.
JOINT_METRICS: dict[str, Callable[[FieldStatistics, FieldStatistics], Results]] = {
    "correlation": _correlation,
    "energy": _energy,
}
FIELD_METRICS = (*CHANNEL_METRICS, *JOINT_METRICS)


def compare_fields(
    made: FieldStatistics, real: FieldStatistics, metrics: Iterable[str]
) -> tuple[list[Results], Results]:
    """Return the results of some FIELD_METRICS by name: of each channel, and of all channels together."""
    asked = list(metrics)
    channels: list[Results] = [{} for _ in made.mean]
    for channel, results in enumerate(channels):
        for name in asked:
            if name in CHANNEL_METRICS:
                results |= CHANNEL_METRICS[name](made, real, channel)
    joint: Results = {}
    for name in asked:
        if name in JOINT_METRICS:
            joint |= JOINT_METRICS[name](made, real)
    return channels, joint

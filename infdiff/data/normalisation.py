"""Invertible maps from values in units to the values that networks see, one a channel, fitted to a set of images.

Each is a table: knots of a rising piecewise linear map, which goes on linearly beyond its ends, so that no value is
clipped. Two knots make an affine map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

NORMALISATIONS = ("none", "minmax", "meanstd", "quantile")
# What the networks' processes take for the spread of values unless they are told otherwise.
_STD = 0.5
_QUANTILES = 257

# Knots in units, and their normalised values.
Table = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Statistics:
    """Mean, sum of squared deviations, lowest and highest value (C,) of the valid pixels of some images, by channel.

    sample (C, K): some of the values, for quantiles.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, most: int) -> Statistics:
        """Return those of values (C, N), N at least 1, with a sample of at most `most`, evenly spaced."""
        wide = values.astype(np.float64)
        mean = wide.mean(axis=1)
        squares = np.square(wide - mean[:, None]).sum(axis=1)
        places = np.linspace(0, wide.shape[1] - 1, min(most, wide.shape[1])).astype(int)
        return cls(wide.shape[1], mean, squares, wide.min(axis=1), wide.max(axis=1), wide[:, places])

    def merged(self, other: Statistics) -> Statistics:
        """Return those of both sets of pixels (Chan et al. 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        return Statistics(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + np.square(apart) * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            np.concatenate([self.sample, other.sample], axis=1),
        )

    @classmethod
    def merge(cls, parts: Iterable[Statistics]) -> Statistics:
        """Return those of all parts, at least one. Samples are joined once."""
        every = list(parts)
        empty = every[0].sample[:, :0]
        alone = (cls(p.count, p.mean, p.squares, p.low, p.high, empty) for p in every)
        total = reduce(cls.merged, alone)
        sample = np.concatenate([part.sample for part in every], axis=1)
        return cls(total.count, total.mean, total.squares, total.low, total.high, sample)


@dataclass(frozen=True)
class Normalisation:
    """A rising map for each channel. kind: one of NORMALISATIONS, which says how it was fitted."""

    kind: str
    tables: tuple[Table, ...]

    @classmethod
    def fitted(cls, kind: str, statistics: Statistics) -> Normalisation:
        """Fit a kind of map.

        none: values as they are. minmax: the lowest and the highest value of a channel go to -1 and 1. meanstd: mean 0
        and standard deviation 0.5, which is what `data_std` is by default. quantile: ranks, evenly from -1 to 1, equal
        values to the middle of their ranks. A channel of one value goes to 0.
        """
        if kind not in NORMALISATIONS:
            raise ValueError(f"unknown normalisation {kind!r}: choose one of {', '.join(NORMALISATIONS)}")
        return cls(kind, tuple(_table(kind, statistics, channel) for channel in range(len(statistics.mean))))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Normalise values (C, ...) in units: float32. NaN stays NaN."""
        return _mapped(values, self.tables)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Return values (C, ...) in units, float32, of normalised ones."""
        return _mapped(values, [(outputs, inputs) for inputs, outputs in self.tables])

    def record(self) -> dict[str, Any]:
        """Return the map as numbers and texts, for JSON."""
        return {"kind": self.kind, "tables": [[list(side) for side in table] for table in self.tables]}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Normalisation:
        """Invert `record`."""
        return cls(record["kind"], tuple((tuple(inputs), tuple(outputs)) for inputs, outputs in record["tables"]))


def _table(kind: str, statistics: Statistics, channel: int) -> Table:
    low, high = float(statistics.low[channel]), float(statistics.high[channel])
    if kind == "none":
        return (0.0, 1.0), (0.0, 1.0)
    if low == high:
        return (low, low + 1.0), (0.0, 1.0)
    if kind == "minmax":
        return (low, high), (-1.0, 1.0)
    if kind == "meanstd":
        mean = float(statistics.mean[channel])
        std = float(np.sqrt(statistics.squares[channel] / statistics.count))
        return (mean, mean + std), (0.0, _STD)
    places = np.linspace(0.0, 1.0, _QUANTILES)
    knots = np.quantile(statistics.sample[channel], places)
    knots[0], knots[-1] = low, high
    inputs, groups = np.unique(knots, return_inverse=True)
    outputs = np.bincount(groups, 2 * places - 1) / np.bincount(groups)
    return tuple(inputs.tolist()), tuple(outputs.tolist())


def _mapped(values: np.ndarray, tables: Sequence[Table]) -> np.ndarray:
    out = np.empty(values.shape, np.float32)
    for channel, (inputs, outputs) in enumerate(tables):
        x, y, wide = np.array(inputs), np.array(outputs), values[channel].astype(np.float64)
        place = np.searchsorted(x, wide, side="right").clip(1, len(x) - 1) - 1
        out[channel] = y[place] + (wide - x[place]) * ((y[place + 1] - y[place]) / (x[place + 1] - x[place]))
    return out

"""Metrics from nearest neighbours in feature space: precision and recall, diversity, memorisation.

Features are (N, D); distances are Euclidean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of the distance matrix that are held in memory at once.
_ROWS = 1024


class Neighbours(NamedTuple):
    """The K nearest images of another set for each of N images: distances (N, K) ascending, indices (N, K) int64."""

    distances: Tensor
    indices: Tensor


def nearest(features: Tensor, reference: Tensor, count: int = 1) -> Neighbours:
    """Find the `count` nearest features of `reference`, at most all of them."""
    count = min(count, len(reference))
    parts = [rows.topk(count, dim=1, largest=False) for rows in _distances(features, reference)]
    return Neighbours(torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts]))


def precision_and_recall(generated: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Return the fraction of generated images among the real ones, and of real images among the generated.

    Kynkäänniemi et al. 2019, Eqs. 1 and 2: a point is among a set if it lies within the ball of one of its points,
    which reaches to that point's k-th nearest neighbour in the set. Raises ValueError for sets of k images or fewer.
    """
    if min(len(generated), len(real)) <= k:
        raise ValueError(f"{min(len(generated), len(real))} images: precision and recall take more than {k}")
    return _part_within(generated, real, k), _part_within(real, generated, k)


def mean_distance(features: Tensor) -> float:
    """Return the mean distance between two different images. Raises ValueError for fewer than two."""
    if len(features) < 2:
        raise ValueError(f"{len(features)} image: diversity takes at least two")
    total = sum(float(rows.double().sum()) for rows in _distances(features, features))
    return total / (len(features) * (len(features) - 1))


def memorisation(generated: Tensor, validation: Tensor, train: Tensor) -> float:
    """Return the probability that a generated image is nearer to the training images than a held-out one.

    Ties count half. ½: as near as held-out images. 1: nearer than all of them, like copies. (Mann and Whitney's U / nm,
    as in the test for data copying of Meehan et al. 2020, over all of feature space.)
    """
    own = nearest(generated, train).distances[:, 0]
    others = nearest(validation, train).distances[:, 0].sort().values
    farther = len(others) - torch.searchsorted(others, own, right=True)
    not_nearer = len(others) - torch.searchsorted(others, own, right=False)
    return float((farther + not_nearer).double().mean()) / (2 * len(others))


def _part_within(features: Tensor, reference: Tensor, k: int) -> float:
    # The first of the k + 1 neighbours is the point itself.
    radii = nearest(reference, reference, k + 1).distances[:, -1]
    inside = [(rows <= radii).any(dim=1) for rows in _distances(features, reference)]
    return float(torch.cat(inside).double().mean())


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield rows of the (N, M) distances, some at a time. If a is b, the distance of a point to itself is exactly 0."""
    for start in range(0, len(a), _ROWS):
        rows = torch.cdist(a[start : start + _ROWS], b)
        if a is b:
            # Rounding of float32 products leaves a small residue.
            rows.diagonal(start).zero_()
        yield rows

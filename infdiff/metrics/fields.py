"""Statistics of sets of fields: real values of any channels with missing pixels, from batches to numbers.

Everything is taken from what is known: single values from known pixels, differences from pairs of them, patches and
spectra from those without a missing pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.metrics.spectrum import channel_spectra

# The most values of each channel whose distribution is kept, and the most patches; side of a patch in pixels.
_VALUES, _PATCHES = 1 << 20, 2000
PATCH = 8
# Places of a field that are tried for each patch.
_TRIES = 8


@dataclass(frozen=True)
class FieldStatistics:
    """Statistics of `count` fields of C channels.

    complete: the number of fields without a missing pixel. spectrum: mean power (C, K) of these, as `channel_spectra`;
    None without any. mean, std, skewness: (C,). correlation: (C, C). values: (C, M) sorted, a sample. variogram: (C, D)
    at `distances`, in pixels or another unit; NaN where no pair of known pixels is so far apart. patches: (P, C, PATCH,
    PATCH).
    """

    count: int
    complete: int
    spectrum: Tensor | None
    mean: Tensor
    std: Tensor
    skewness: Tensor
    correlation: Tensor
    values: Tensor
    distances: tuple[float, ...]
    variogram: Tensor
    patches: Tensor


def default_distances(size: tuple[int, int]) -> tuple[int, ...]:
    """Distances of a variogram: 1, 2, 4, ... pixels up to half of the shorter side."""
    return tuple(1 << n for n in range(min(size).bit_length() - 1) if 1 << n <= min(size) // 2)


def describe_fields(
    batches: Iterable[Tensor],
    count: int,
    distances: Sequence[int],
    on_images: Callable[[int], object] = lambda count: None,
) -> FieldStatistics:
    """Describe batches of fields (B, C, H, W) float32, NaN where missing, `count` of them together, two or more.

    on_images(n) is called after each batch. Samples of values and of patches are drawn, the same way in each call.
    Raises ValueError for fields without two known pixels.
    """
    generator = torch.Generator().manual_seed(0)
    moments: _Moments | None = None
    spectra, values, patches = [], [], []
    pairs: list[Tensor] = []
    each, cut, seen = max(1, _VALUES // count), -(-_PATCHES // count), 0
    for batch in batches:
        valid = ~batch.isnan().any(dim=1)
        moments = moments or _Moments(batch, valid)
        moments.add(batch, valid)
        whole = valid.flatten(1).all(dim=1)
        if whole.any():
            spectra.append(channel_spectra(batch[whole]))
        pairs.append(torch.stack([_squared_differences(batch, distance) for distance in distances], dim=-1))
        for field, known in zip(batch, valid, strict=True):
            places = known.flatten().nonzero()[:, 0]
            order = torch.randperm(len(places), generator=generator)[:each]
            values.append(field.flatten(1)[:, places[order]])
            patches += _patches(field, known, cut, generator)
        seen += len(batch)
        on_images(len(batch))
    if moments is None or moments.count < 2:
        raise ValueError("fields with fewer than two known pixels: nothing can be said about them")
    mean, std, skewness, correlation = moments.result()
    sums, numbers = torch.stack(pairs).sum(dim=0)
    side = batch.shape[1], PATCH, PATCH
    return FieldStatistics(
        count=seen,
        complete=sum(map(len, spectra)),
        spectrum=torch.cat(spectra).mean(dim=0) if spectra else None,
        mean=mean,
        std=std,
        skewness=skewness,
        correlation=correlation,
        values=torch.cat(values, dim=1).sort(dim=1).values,
        distances=tuple(distances),
        variogram=torch.where(numbers > 0, sums / (2 * numbers.clamp(min=1)), torch.nan),
        patches=torch.stack(patches) if patches else torch.empty(0, *side),
    )


def wasserstein_distance(a: Tensor, b: Tensor) -> float:
    """Return the 1-Wasserstein distance of two samples, sorted (M,) and (N,): the area between their distributions."""
    a, b = a.double(), b.double()
    every = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(one, every[:-1], right=True).double() / len(one) for one in (a, b)]
    return float(((below[0] - below[1]).abs() * every.diff()).sum())


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples (M, D), (N, D) (Székely and Rizzo 2013).

    Without bias: pairs of a member with itself do not count, so that samples of one distribution have about 0.
    """
    a, b = a.double(), b.double()
    within = [float(_distances(one, one).sum()) / (len(one) * (len(one) - 1)) for one in (a, b)]
    return 2 * float(_distances(a, b).mean()) - sum(within)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not from products, which round the small distances.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def relative_errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Return |found - wanted| / |wanted|; infinite where only the wanted one is 0, and 0 where both are."""
    return torch.where(found == wanted, 0.0, (found - wanted).abs() / wanted.abs())


class _Moments:
    """Sums of powers and of products of values, less a constant near their mean, which keeps float64 exact."""

    def __init__(self, batch: Tensor, valid: Tensor) -> None:
        flat = batch.double().transpose(0, 1)[:, valid]
        self.shift = flat.mean(dim=1, keepdim=True) if flat.shape[1] else flat.new_zeros(len(flat), 1)
        self.count = 0
        self.powers = flat.new_zeros(len(flat), 3)
        self.products = flat.new_zeros(len(flat), len(flat))

    def add(self, batch: Tensor, valid: Tensor) -> None:
        x = batch.double().transpose(0, 1)[:, valid] - self.shift  # (C, N)
        self.count += x.shape[1]
        self.powers += torch.stack([x.sum(dim=1), x.square().sum(dim=1), x.pow(3).sum(dim=1)], dim=1)
        self.products += x @ x.T

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, standard deviation and skewness (C,), and correlation (C, C); of a constant NaN."""
        first, second, third = (self.powers / self.count).unbind(dim=1)
        covariance = self.products / self.count - torch.outer(first, first)
        std = covariance.diagonal().clamp(min=0).sqrt()
        skewness = (third - 3 * first * second + 2 * first**3) / std**3
        correlation = covariance / torch.outer(std, std)
        return self.shift[:, 0] + first, std, skewness, correlation


def _squared_differences(batch: Tensor, distance: int) -> Tensor:
    """Return the sum of squared differences along rows and columns, and the number of pairs: (2, C)."""
    x = batch.double()
    ends = ((x[:, :, distance:], x[:, :, :-distance]), (x[..., distance:], x[..., :-distance]))
    squares = [(far - near).square().transpose(0, 1).flatten(1) for far, near in ends]
    joined = torch.cat(squares, dim=1)
    return torch.stack([joined.nansum(dim=1), (~joined.isnan()).sum(dim=1).double()])


def _patches(field: Tensor, known: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Return up to `count` patches (C, PATCH, PATCH) without a missing pixel, at random places."""
    height, width = known.shape
    if min(height, width) < PATCH:
        return []
    corners = torch.rand(_TRIES * count, 2, generator=generator)
    corners = (corners * torch.tensor([height - PATCH + 1, width - PATCH + 1])).long()
    found = []
    for top, left in corners.tolist():
        if known[top : top + PATCH, left : left + PATCH].all():
            found.append(field[:, top : top + PATCH, left : left + PATCH])
        if len(found) == count:
            break
    return found

"""Ensembles: variants of one field with the same known pixels, their mean, their spread, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infdiff.data.fields import FieldDescription
from infdiff.images.colour import picture


def mean_and_spread(members: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation (C, H, W), without bias, of two variants (N, C, H, W) or more."""
    return members.mean(dim=0), members.std(dim=0)


def spread_skill_ratios(members: Tensor, truth: Tensor, where: Tensor) -> list[float]:
    """Return spread over error of each channel, at pixels `where` (H, W): 1 for a reliable ensemble, less if too sure.

    sqrt((N + 1) / N times the mean variance of the members), over the root mean square error of their mean: for members
    and truth (C, H, W) of one distribution both are equal (Fortin et al. 2014). Where the truth is missing nothing
    counts.
    """
    known = where & ~truth.isnan().any(dim=0)
    count = len(members)
    mean, spread = mean_and_spread(members.double())
    variance = spread[:, known].square().mean(dim=1) * (count + 1) / count
    error = (mean - truth)[:, known].square().mean(dim=1)
    return (variance / error).sqrt().tolist()


def ensemble_picture(field: FieldDescription, given: Tensor, members: Tensor, truth: Tensor | None) -> Tensor:
    """Return (3, H', W') uint8: the given field (C, H, W), the truth if it is known, the mean, a variant, the spread.

    The colours of all but the spread are those of the given values.
    """
    mean, spread = mean_and_spread(members)
    known = given.flatten(1)[:, ~given.isnan().any(dim=0).flatten()]
    limits = list(zip(known.amin(dim=1).tolist(), known.amax(dim=1).tolist(), strict=True))
    rows = {"given": given} | ({} if truth is None else {"truth": truth}) | {"mean": mean, "one variant": members[0]}
    shown = [picture(values, limits, _labels(field, name)) for name, values in rows.items()]
    largest = [(0.0, value) for value in spread.flatten(1).amax(dim=1).tolist()]
    return torch.cat([*shown, picture(spread, largest, _labels(field, "spread"))], dim=1)


def _labels(field: FieldDescription, what: str) -> Sequence[str]:
    return [f"{what}: {field.label(channel)}" for channel in range(field.channels)]

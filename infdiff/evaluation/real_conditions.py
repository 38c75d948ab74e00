"""Conditions of real images, for images that a run generates for an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from infdiff.coordinates import Size
from infdiff.diffusion.conditions import Condition, with_known
from infdiff.errors import OptionError
from infdiff.evaluation.real_images import StoredImages
from infdiff.runs.conditions import check_weight, labelled_as
from infdiff.runs.trained import TrainedModel

CONDITIONS = ("none", "real")


@dataclass(frozen=True)
class RealConditions:
    """Image i is given the label and the condition channels of real image i, at the size that the network sees.

    Real images are those of a store that holds what the run's own does. Raises UserError for other labels, and
    OptionError for a run without conditions or a weight that is none.
    """

    run: TrainedModel
    real: StoredImages
    size: Size
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.run.labels is None and self.run.known_field is None:
            raise OptionError("conditions", "real", "the run was trained without labels and condition channels")
        check_weight("weight", self.weight)
        if self.run.labels is not None:
            for store, _ in self.real.pieces:
                labelled_as(store, self.run.labels)

    def of(self, indices: Sequence[int], device: torch.device) -> Condition:
        """Return the condition of images with these numbers."""
        labels = known = None
        if self.run.labels is not None:
            labels = self.real.label_rows(indices).to(device)
        if self.run.known_field is not None:
            images = self.real.take(indices, self.size)
            known = with_known(images[:, self.run.config.data.channels :]).to(device)
        return Condition(labels, known, self.weight)

"""The loss of a run by noise level: what a loss averaged over times hides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from infdiff.coordinates import Size
from infdiff.evaluation.real_images import StoredImages
from infdiff.metrics.compare import NOISE_LEVELS
from infdiff.runs.trained import TrainedModel
from infdiff.seeding import generator_for

_BATCH = 32


@torch.no_grad()
def denoising_losses(
    run: TrainedModel,
    images: StoredImages,
    size: Size,
    rate: float,
    seed: int,
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """Return the mean error of the training target at NOISE_LEVELS, by the names of their columns.

    rate: one of every `rate` pixels is read, by the encoder, too. A level beyond the schedule's ends is measured at the
    end. Noise and points are functions of the seed, the same for all levels.
    """
    modules: dict[str, nn.Module] = {"denoiser": run.denoiser}
    if run.encoder is not None:
        modules["encoder"] = run.encoder
    objectives = {level: run.method.objective_at(level, rate) for level in NOISE_LEVELS}
    sums = dict.fromkeys(NOISE_LEVELS, 0.0)
    for start in range(0, len(images), _BATCH):
        batch = images.take(range(start, min(start + _BATCH, len(images))), size).to(run.device)
        for level, objective in objectives.items():
            generator = generator_for(run.device, seed, "denoise", start)
            sums[level] += float(objective(modules, batch, generator)) * len(batch)
        on_images(len(batch))
    return {f"loss_{level:g}": total / len(images) for level, total in sums.items()}

"""Configuration -> a trainer, with the pictures it makes on the way."""

from __future__ import annotations

from pathlib import Path

import torch

from infdiff.build.check import point_count, training_size
from infdiff.build.objects import Data, build_modules, build_objective, build_process
from infdiff.build.small_evaluation import SmallEvaluation
from infdiff.config import Config
from infdiff.data.batches import batches, first_batches
from infdiff.pipelines.previews import Previews
from infdiff.training.trainer import Trainer


def build_trainer(config: Config, data: Data, folder: Path, device: torch.device) -> Trainer:
    """Everything `scripts/train.py` runs; the run directory must exist."""
    size = config.train.batch_size
    previews = Previews(
        build_process(config),
        train=data.train,
        validation=data.validation,
        size=training_size(config),
        points=point_count(config),
        folder=folder / "samples",
        device=device,
        seed=config.seed,
        sampler=config.sample.sampler,
        steps=config.sample.steps,
        truncation=config.sample.truncation,
    )
    return Trainer(
        modules={name: module.to(device) for name, module in build_modules(config).items()},
        objective=build_objective(config),
        batches=lambda position: batches(
            data.train, size, seed=config.seed, position=position, workers=config.data.workers, device=device
        ),
        validation=lambda: first_batches(data.validation, size, config.train.validation_images, device),
        on_sample=previews,
        settings=config.train,
        folder=folder,
        device=device,
        seed=config.seed,
        evaluate=SmallEvaluation(config, data, device) if config.train.eval_every else None,
    )

"""The trainer of a configuration, with the images it makes during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from infdiff.config.settings import Config
from infdiff.methods.finetune import frozen_parameters, load_start
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import point_count, training_size
from infdiff.runs.checkpoint_scores import SmallEvaluation
from infdiff.runs.data import Data, TrainingData
from infdiff.runs.previews import Draw, Previews
from infdiff.training.trainer import Trainer


def build_trainer(config: Config, data: Data, folder: Path, device: torch.device) -> Trainer:
    """Return the trainer that `infdiff train` runs; the run directory must exist."""
    given = TrainingData(config, data, device)
    modules = build_modules(config)
    load_start(config, modules)
    draw = drawn_at_training_size(config, device)
    previews = Previews(
        draw,
        train=data.train,
        validation=data.validation,
        points=point_count(config),
        folder=folder / "samples",
        device=device,
        seed=config.seed,
        truncation=config.truncation,
    )
    return Trainer(
        modules={name: module.to(device) for name, module in modules.items()},
        objective=method_of(config).objective(),
        batches=given.batches,
        validation=given.validation,
        label=given.label,
        frozen=frozen_parameters(config, modules),
        on_sample=previews,
        sample_every=config.train.sample_every,
        settings=config.train,
        folder=folder,
        device=device,
        seed=config.seed,
        evaluate=SmallEvaluation(config, data, device, draw) if config.train.eval_every else None,
        eval_every=config.train.eval_every,
    )


def drawn_at_training_size(config: Config, device: torch.device) -> Draw:
    """Return a function that samples at the training size, with the configuration's sampler."""
    method, size = method_of(config), training_size(config)
    options = SamplingOptions.of(method)

    def draw(denoiser: nn.Module, z: Tensor | None, indices: Sequence[int]) -> Tensor:
        return method.generate(
            denoiser, size=size, seed=config.seed, indices=indices, z=z, device=device, options=options
        )

    return draw

"""The trainer of a configuration, with the images it makes during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from infdiff.config.settings import Config
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.methods.finetune import frozen_parameters, load_start
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sampling import SamplingOptions, default_batch
from infdiff.methods.sizes import images_a_step, point_count, training_size
from infdiff.runs.calibration import Calibration
from infdiff.runs.checkpoint_scores import SmallEvaluation
from infdiff.runs.data import Data, TrainingData
from infdiff.runs.fields import field_of, generated_field, pictures_of
from infdiff.runs.previews import Previews, Sampling
from infdiff.training.trainer import Trainer

# Evaluations of the network cost time; more of them change little in a preview.
_QUICK_STEPS = 10


def build_trainer(config: Config, data: Data, folder: Path, device: torch.device) -> Trainer:
    """Return the trainer that `infdiff train` runs; the run directory must exist."""
    given = TrainingData(config, data, device)
    modules = build_modules(config)
    load_start(config, modules)
    standardizes = getattr(modules.get("encoder"), "standardize", None) is not None
    sampling = quick_sampling(config, device)
    preview = Previews(
        sampling,
        train=data.train,
        validation=data.validation,
        points=point_count(config),
        folder=folder / "samples",
        device=device,
        seed=config.seed,
        truncation=config.truncation,
        encodes="encoder" in modules,
        images_a_step=images_a_step(config),
        pictures=pictures_of(generated_field(config, field_of(config))),
        channels=config.data.channels,
    )
    return Trainer(
        modules=modules,
        objective=method_of(config).objective(),
        batches=given.batches,
        validation=given.validation,
        label=given.label,
        frozen=frozen_parameters(config, modules),
        preview=preview,
        sample_every=config.train.sample_every,
        settings=config.train,
        folder=folder,
        device=device,
        seed=config.seed,
        evaluate=SmallEvaluation(config, data, device, own_sampling(config, device))
        if config.train.eval_every
        else None,
        eval_every=config.train.eval_every,
        calibrate=Calibration(config, data.train, device) if standardizes else None,
    )


def own_sampling(config: Config, device: torch.device) -> Sampling:
    """Return a way to sample at the training size with the configuration's sampler."""
    return _sampling(config, device, SamplingOptions.of(method_of(config)))


def quick_sampling(config: Config, device: torch.device) -> Sampling:
    """Return a way to sample at the training size that is good enough to see what a network has learnt."""
    method = method_of(config)
    steps = min(_QUICK_STEPS, method.most_steps or _QUICK_STEPS)
    return _sampling(config, device, SamplingOptions.of(method, sampler=method.quick_sampler, steps=steps))


def _sampling(config: Config, device: torch.device, options: SamplingOptions) -> Sampling:
    method, size = method_of(config), training_size(config)

    def draw(
        denoiser: nn.Module,
        z: Tensor | None,
        indices: Sequence[int],
        on_step: Callable[[], object],
        condition: Condition = UNCONDITIONAL,
    ) -> Tensor:
        return method.generate(
            denoiser,
            size=size,
            seed=config.seed,
            indices=indices,
            z=z,
            device=device,
            options=options,
            condition=condition,
            on_step=on_step,
        )

    return Sampling(draw, options.evaluations(method), default_batch(method, size))

"""A run's latents and configuration -> the trainer of its latent diffusion model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from infdiff.config import Config
from infdiff.data.batches import batches
from infdiff.data.latents import Latents, LatentSet, encode_data, image_count, latent_batches
from infdiff.errors import UserError
from infdiff.runs.data import build_data
from infdiff.runs.latents import build_latent, encoder_fingerprint, latent_folder
from infdiff.runs.trained import Run, claim_folder
from infdiff.training.objectives import LatentObjective
from infdiff.training.trainer import Trainer

# Of the latent settings, those that may change between two calls.
_MAY_CHANGE = (
    "latent.sample_steps",
    "latent.train.steps",
    "latent.train.log_every",
    "latent.train.checkpoint_every",
    "latent.train.keep_checkpoints",
    "latent.train.max_bad_steps",
)
_OTHER_PARTS = ("name", "data", "model", "diffusion", "train", "sample")


def open_latent_folder(run: Run, config: Config) -> Path:
    """The folder of the latent model of the run's checkpoint. Raises UserError when it holds one of other settings."""
    if run.encoder is None:
        raise UserError(f"{run.folder} was trained without an encoder (model.z_dim: 0): there are no latents to model")
    folder = latent_folder(run.folder, run.step)
    claim_folder(folder, config, may_change=(*_MAY_CHANGE, *_OTHER_PARTS))
    return folder


def encode_run(
    run: Run, folder: Path, on_count: Callable[[int], object], on_images: Callable[[int], object]
) -> Latents:
    """The latents of all images of the run's data. on_count(n): how many there are; on_images(n): n more are done."""
    data = build_data(replace(run.config, data=replace(run.config.data, cache="none")), run.device)
    sets = {"train": data.train, "validation": data.validation}
    flip = run.config.data.flip
    on_count(image_count(sets, flip))
    fingerprint = encoder_fingerprint(run.folder, run.step)
    return encode_data(run.encode, sets, folder, encoder=fingerprint, flip=flip, device=run.device, on_images=on_images)


def build_latent_trainer(config: Config, latents: Latents, folder: Path, device: torch.device) -> Trainer:
    """Everything `scripts/train_latent.py` runs, on normalised latents."""
    network, process = build_latent(config)
    settings = config.latent.train
    train = LatentSet(latents.normalize(latents.train), device)
    held_out = latents.normalize(latents.validation)
    return Trainer(
        modules={"latent": network.to(device)},
        objective=LatentObjective(process),
        batches=lambda step: batches(
            train,
            settings.batch_size,
            seed=config.seed,
            position=step * settings.batch_size * settings.accumulate,
            workers=0,
            device=device,
        ),
        validation=lambda: latent_batches(held_out, settings.batch_size, device),
        on_sample=lambda step, modules: None,
        settings=settings,
        folder=folder,
        device=device,
        seed=config.seed,
    )

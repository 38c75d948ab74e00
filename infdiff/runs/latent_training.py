"""The latents of a run's images, and the trainer of the latent diffusion model on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.config.settings import Config
from infdiff.data.batches import batches
from infdiff.data.examples import Examples
from infdiff.data.latents import Latents, LatentSet, encode_data, image_count, latent_batches
from infdiff.runs.data import build_data, uncached
from infdiff.runs.folder import RunFolder
from infdiff.runs.latents import build_latent, latent_settings
from infdiff.runs.trained import TrainedModel
from infdiff.training.objectives import LatentObjective
from infdiff.training.trainer import Trainer

# Latent settings that may change between two calls.
_MAY_CHANGE = (
    "latent.sample_steps",
    "latent.train.steps",
    "latent.train.log",
    "latent.train.log_every",
    "latent.train.checkpoint_every",
    "latent.train.keep_checkpoints",
    "latent.train.max_bad_steps",
    "latent.train.compile",
    "latent.train.graph",
    "latent.train.parallel",
)
_OTHER_PARTS = ("name", "data", "model", "diffusion", "train", "sample")


def open_latent_folder(trained: TrainedModel, config: Config) -> RunFolder:
    """Make or find the folder of the latent model of a run's checkpoint.

    Raises UserError when it holds one of other settings, or the run has no encoder.
    """
    trained.require_encoder()
    folder = trained.folder.latents(trained.step)
    folder.claim(config, may_change=(*_MAY_CHANGE, *_OTHER_PARTS))
    return folder


def encode_run(
    trained: TrainedModel, folder: RunFolder, on_count: Callable[[int], object], on_images: Callable[[int], object]
) -> Latents:
    """Return the latents of all images of the run's data.

    on_count(n) is called once with their number, on_images(n) as n more are encoded.
    """
    data = build_data(uncached(trained.config), trained.device)
    sets: dict[str, Examples] = {"train": data.train, "validation": data.validation}
    flip = trained.config.data.flip
    on_count(image_count(sets, flip))
    fingerprint = trained.folder.fingerprint(trained.step, "encoder")
    return encode_data(
        trained.encode,
        sets,
        folder.path,
        encoder=fingerprint,
        flip=flip,
        device=trained.device,
        whiten=latent_settings(folder.config()).whiten,
        on_images=on_images,
    )


def latent_labels(config: Config, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Return the labels of training and of validation latents, in their order; None for a run without labels."""
    if not config.label_dim:
        return None, None
    data = build_data(uncached(config), device)
    train, validation = data.train.labels, data.validation.labels
    return (train.repeat(2, 1) if train is not None and config.data.flip else train), validation


def build_latent_trainer(config: Config, latents: Latents, folder: RunFolder, device: torch.device) -> Trainer:
    """Return the trainer that `infdiff train-latent` runs, on normalised latents, with the labels of their images."""
    network, process = build_latent(config)
    settings = latent_settings(config).train
    own, held_out = latent_labels(config, device)
    train = LatentSet(latents.normalize(latents.train), device, own)
    validation = latents.normalize(latents.validation)
    return Trainer(
        modules={"latent": network},
        objective=LatentObjective(process, drop=config.train.condition_drop),
        batches=lambda step: batches(
            train,
            settings.batch_size,
            seed=config.seed,
            position=step * settings.batch_size * settings.accumulate,
            workers=0,
            device=device,
        ),
        validation=lambda: latent_batches(
            validation, settings.batch_size, settings.validation_batches(), device, held_out
        ),
        settings=settings,
        folder=folder.path,
        device=device,
        seed=config.seed,
    )

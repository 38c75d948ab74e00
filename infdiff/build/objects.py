"""Configuration -> processes, networks, data and objectives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from infdiff.build.check import grid_size, point_count, training_size
from infdiff.config import Config, GridConfig
from infdiff.data.batches import ImageSet, split
from infdiff.data.demo import DEMO_PATH
from infdiff.data.store import ImageStore
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import MollifiedDiffusion
from infdiff.models import GridUNet, SparseEncoder, SparseUNet
from infdiff.models.grid_unet import GridDown
from infdiff.training.objective import MollifiedObjective


def build_process(config: Config) -> MollifiedDiffusion:
    d = config.diffusion
    mollifier = Mollifier(d.sigma, training_size(config))
    return MollifiedDiffusion(
        mollifier, schedule=d.schedule, steps=d.steps, shift=d.shift, target=d.target, data_std=d.data_std
    )


def build_modules(config: Config) -> dict[str, nn.Module]:
    """{"denoiser": ..., "encoder": ...} with fresh weights, a function of the seed; no encoder if z_dim is 0."""
    torch.manual_seed(config.seed)
    model, grid = config.model, config.model.grid
    shared = {
        "base": training_size(config),
        "grid": grid_size(config),
        "channels": model.channels,
        "kernel_size": model.kernel_size,
        "blocks": model.blocks,
        "mlp_ratio": model.mlp_ratio,
        "depthwise": model.depthwise,
        "backend": model.backend,
        "z_dim": model.z_dim,
    }
    inner = _grid_arguments(grid, model.channels, max(grid_size(config)))
    unet = GridUNet(out_channels=model.channels, condition_dim=model.condition_dim, **inner)
    modules: dict[str, nn.Module] = {"denoiser": SparseUNet(unet, condition_dim=model.condition_dim, **shared)}
    if model.z_dim:
        modules["encoder"] = SparseEncoder(GridDown(condition_dim=0, **inner), **shared)
    # Channels last: convolutions and channel norms of the grid network then need no transposes.
    return {name: module.to(memory_format=torch.channels_last) for name, module in modules.items()}


def build_objective(config: Config) -> MollifiedObjective:
    return MollifiedObjective(
        build_process(config),
        size=training_size(config),
        points=point_count(config),
        kind=config.train.points,
        flip=config.data.flip,
        code_noise=config.train.code_noise,
    )


@dataclass(frozen=True)
class Data:
    """Training and held-out images at the training resolution."""

    train: ImageSet
    validation: ImageSet


def build_data(config: Config, device: torch.device) -> Data:
    """Open the stores and split them. Raises UserError when one is missing or not ours."""
    size, cache = training_size(config), config.data.cache
    store = ImageStore(config.data.path or DEMO_PATH)
    if config.data.validation_path:
        held_out = ImageStore(config.data.validation_path)
        train, rest = list(range(len(store))), list(range(len(held_out)))
    else:
        held_out = store
        train, rest = split(store, config.data.validation_fraction, config.seed)
    validation = ImageSet(held_out, rest[: config.train.validation_images], size, cache="ram")
    return Data(ImageSet(store, train, size, cache=cache, device=device), validation)


def _grid_arguments(grid: GridConfig, channels: int, side: int) -> dict:
    return {
        "in_channels": channels,
        "channels": grid.channels,
        "multipliers": grid.multipliers,
        "blocks": grid.blocks,
        "attention_sizes": grid.attention_sizes,
        "size": side,
        "dropout": grid.dropout,
        "dropout_size": grid.dropout_size,
    }

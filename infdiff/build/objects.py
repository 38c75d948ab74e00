"""Configuration -> networks and data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from infdiff.build.sizes import training_size
from infdiff.build.system import system_of
from infdiff.config import Config
from infdiff.data.batches import ImageSet, split
from infdiff.data.demo import DEMO_PATH
from infdiff.data.store import ImageStore


def build_modules(config: Config) -> dict[str, nn.Module]:
    """{"denoiser": ..., "encoder": ...} with fresh weights, a function of the seed; no encoder if z_dim is 0."""
    torch.manual_seed(config.seed)
    # Channels last: convolutions and channel norms of the grid network then need no transposes.
    networks = system_of(config).networks()
    return {name: module.to(memory_format=torch.channels_last) for name, module in networks.items()}


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

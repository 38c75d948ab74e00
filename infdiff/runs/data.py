"""Configuration -> networks and data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from infdiff.config import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.batches import ImageSet, split
from infdiff.data.demo import DEMO_PATH
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.methods.method import method_of
from infdiff.methods.sizes import resolutions, training_size


def build_modules(config: Config) -> dict[str, nn.Module]:
    """{"denoiser": ..., "encoder": ...} with fresh weights, a function of the seed; no encoder if z_dim is 0."""
    torch.manual_seed(config.seed)
    # Channels last: convolutions and channel norms of the grid network then need no transposes.
    networks = method_of(config).networks()
    return {name: module.to(memory_format=torch.channels_last) for name, module in networks.items()}


@dataclass(frozen=True)
class Data:
    """Training and held-out images at the training size."""

    train: ImageSet
    validation: ImageSet


def build_data(config: Config, device: torch.device) -> Data:
    """Open the stores and split them.

    Raises UserError when one is missing or not ours, or holds smaller images than are to be trained on.
    """
    size, cache = training_size(config), config.data.cache
    store = ImageStore(config.data.path or DEMO_PATH)
    _require_stored(store, resolutions(config))
    if config.data.validation_path:
        held_out = ImageStore(config.data.validation_path)
        train, rest = list(range(len(store))), list(range(len(held_out)))
    else:
        held_out = store
        train, rest = split(store, config.data.validation_fraction, config.seed)
    validation = ImageSet(held_out, rest[: config.train.validation_images], size, cache="ram")
    return Data(ImageSet(store, train, size, cache=cache, device=device), validation)


def _require_stored(store: ImageStore, sizes: Iterable[Size]) -> None:
    for size in sizes:
        if not store.holds(size):
            raise UserError(
                f"resolution {format_size(size)} is larger than the images of {store.path}: prepare larger ones, or "
                "train on smaller ones (data.size, data.resolutions)"
            )

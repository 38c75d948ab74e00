"""The two methods of the package, and the only place where `method` chooses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from infdiff.config import Config, EDMConfig, InfinityDiffConfig
from infdiff.coordinates import Size
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.methods.edm import EDMMethod
from infdiff.methods.infinity_diff import InfinityDiff
from infdiff.training.trainer import Objective


class Method(Protocol):
    """How a configuration of one kind is checked, built, trained and sampled.

    samplers: what `--sampler` can be. options: the sampling options it has, by their names in the section `sample`.
    """

    samplers: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def most_steps(self) -> int | None:
        """How many steps sampling can take; None for any number."""

    @property
    def process(self) -> MollifiedDiffusion | EDM: ...

    def check(self) -> None:
        """Raise UserError naming the first settings that cannot work together."""

    def grid(self) -> Size:
        """The grid that the grid network sees of images of the training size."""

    def top_grid(self) -> Size:
        """The largest grid that the grid network sees in training."""

    def check_options(self, options: Mapping[str, Any], deblur: bool) -> None:
        """Raise UserError naming the first sampling option that cannot work."""

    def networks(self) -> dict[str, nn.Module]:
        """Fresh weights from the global generator: "denoiser", and "encoder" where there is one."""

    def trace(self, modules: Mapping[str, nn.Module], size: Size) -> Tensor:
        """What the networks make of one training image of a size and any values, on the meta device."""

    def objective(self) -> Objective: ...

    def generate(
        self,
        denoiser: nn.Module,
        *,
        size: Size,
        seed: int,
        indices: Sequence[int],
        z: Tensor | None,
        device: torch.device,
        **options: Any,
    ) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] or a little beyond; image indices[i] depends on (seed, indices[i]), z[i]."""

    def evaluations(self, steps: int) -> int:
        """How often sampling with so many steps evaluates the network."""

    def deblur(self, images: Tensor) -> Tensor:
        """Undo the mollifier."""

    def strip_rows(self, size: Size) -> int | None:
        """How many rows of an image to take at a time where memory is short; None for a network that cannot."""

    def feature_bytes(self, size: Size) -> int:
        """About what the features of one image of a size take in sampling."""


SAMPLERS = (*InfinityDiff.samplers, *EDMMethod.samplers)


def method_of(config: Config) -> Method:
    """Return the method that a configuration is of."""
    if isinstance(config, InfinityDiffConfig):
        return InfinityDiff(config)
    if isinstance(config, EDMConfig):
        return EDMMethod(config)
    raise TypeError(f"{type(config).__name__} is the configuration of no method")


def build_modules(config: Config) -> dict[str, nn.Module]:
    """{"denoiser": ..., "encoder": ...} with fresh weights, a function of the seed; no encoder if z_dim is 0."""
    torch.manual_seed(config.seed)
    # Channels last: convolutions and channel norms of the grid network then need no transposes.
    networks = method_of(config).networks()
    return {name: module.to(memory_format=torch.channels_last) for name, module in networks.items()}

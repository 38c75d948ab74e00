"""The two methods of the package, and the only place where `method` chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from infdiff.config.settings import Config, EDMConfig, InfinityDiffConfig
from infdiff.coordinates import Size
from infdiff.cuda_graphs import RepeatedCalls
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Sample
from infdiff.methods.edm import EDMMethod
from infdiff.methods.infinity_diff import InfinityDiff
from infdiff.methods.sampling import SamplingMethod, SamplingOptions
from infdiff.training.step import Objective


class Method(SamplingMethod, Protocol):
    """A method: checks, builds, trains and samples what a configuration describes."""

    @property
    def process(self) -> MollifiedDiffusion | EDM: ...

    @property
    def quick_sampler(self) -> str:
        """The sampler that needs the fewest evaluations of the network."""

    def check(self) -> None:
        """Raise UserError naming the first settings that cannot work together."""

    def grid(self) -> Size:
        """Size of the grid network's input for images of the training size."""

    def top_grid(self) -> Size:
        """Size of the grid network's largest input in training."""

    def networks(self) -> dict[str, nn.Module]:
        """Fresh weights from the global generator: "denoiser", and "encoder" where there is one."""

    def trace(self, modules: Mapping[str, nn.Module], size: Size) -> Tensor:
        """Forward pass on one dummy training image, on the meta device (to count parameters, FLOP and memory)."""

    def objective(self) -> Objective: ...

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of points that a loss can be measured at: all pixels, and those trained on."""

    def objective_at(self, noise: float, rate: float) -> Objective:
        """The training target's unweighted error at one noise std over signal std and one of `rates`, of unflipped
        images.
        """

    def sampler(self, options: SamplingOptions) -> Sample[Any]:
        """The sampler that options name, as `pipelines.generate` takes it."""

    def generate(
        self,
        denoiser: nn.Module,
        *,
        size: Size,
        seed: int,
        indices: Sequence[int],
        z: Tensor | None,
        device: torch.device,
        options: SamplingOptions,
        condition: Condition = UNCONDITIONAL,
        on_step: Callable[[], object] | None = None,
        calls: RepeatedCalls | None = None,
    ) -> Tensor:
        """Images (B, C, H, W), normalised, within their limits or a little beyond.

        Image indices[i] depends on (seed, indices[i]), z[i] and row i of the condition.
        on_step is called after each evaluation of the network. calls: keeps this denoiser as it is used at each size
        and batch, so that another call finds it. Truncation and upscaling are the caller's.
        """


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
    for module in networks.values():
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return networks

"""DFU and its baselines (method: edm): a grid network alone, on all pixels of images, with EDM."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from infdiff.config.settings import EDMConfig
from infdiff.coordinates import Size, format_size
from infdiff.cuda_graphs import RepeatedCalls
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition, guided_network
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Denoiser, Noise, Sample
from infdiff.diffusion.samplers import EDM_SAMPLERS, sampler_options
from infdiff.diffusion.schedules import sigma_steps
from infdiff.errors import OptionError, UserError
from infdiff.methods.conditions import condition_inputs, known_channels
from infdiff.methods.finetune import check_finetune
from infdiff.methods.grid_networks import grid_network
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import largest, resolutions, training_size
from infdiff.models import GridDenoiser, UNet
from infdiff.pipelines.generate import generate, repeated
from infdiff.precision import in_formats
from infdiff.training.augment import LABELS
from infdiff.training.objectives import EDMObjective


class EDMMethod:
    """EDM with a grid network, as `Method` describes a method."""

    samplers = EDM_SAMPLERS
    quick_sampler = "heun"
    options = ("sampler", "steps", *sampler_options(EDM_SAMPLERS))

    def __init__(self, config: EDMConfig) -> None:
        self.config = config

    @cached_property
    def process(self) -> EDM:
        e = self.config.edm
        mollified = e.noise == "mollified"
        mollifier = Mollifier(e.mollifier_sigma, training_size(self.config)) if mollified else None
        return EDM(sigma_data=e.data_std, P_mean=e.log_mean, P_std=e.log_std, mollifier=mollifier)

    def check(self) -> None:
        config = self.config
        top, size = largest(resolutions(config)), training_size(config)
        if size != top:
            raise UserError(
                f"data.size: {format_size(size)} is not the largest of data.resolutions: with method: edm, set it to "
                f"{format_size(top)}"
            )
        if config.model.grid.on_points:
            raise UserError(
                f"model.grid.kind: {config.model.grid.kind}: a network on points wants method: infinity_diff"
            )
        if config.data.augment and config.data.valid_pixels:
            raise UserError(
                f"data.augment: {config.data.augment:g}: moves missing pixels over the image: set it to 0 "
                "for data that have them"
            )
        check_finetune(config)

    def grid(self) -> Size:
        return training_size(self.config)

    def top_grid(self) -> Size:
        return self.grid()

    @property
    def deblurs(self) -> tuple[str, ...]:
        return ("wiener", "none") if self.config.edm.noise == "mollified" else ("none",)

    @property
    def most_steps(self) -> None:
        return None

    def check_options(self, options: SamplingOptions) -> None:
        if not 0 <= options.churn < math.inf:
            raise OptionError("churn", f"{options.churn:g}", "want 0 (deterministic) or more")

    def networks(self) -> dict[str, nn.Module]:
        model, data = self.config.model, self.config.data
        in_channels = data.channels + known_channels(self.config)
        network = cast(
            UNet,
            grid_network(
                model.grid,
                in_channels=in_channels,
                out_channels=self.config.data.channels,
                size=self.top_grid(),
                condition_dim=model.condition_dim,
                layout=False,
            ),
        )
        denoiser = GridDenoiser(
            network,
            condition_dim=model.condition_dim,
            augmentation_dim=LABELS if data.augment else 0,
            label_dim=self.config.label_dim,
            in_channels=in_channels,
        )
        return {"denoiser": denoiser}

    def trace(self, modules: Mapping[str, nn.Module], size: Size) -> Tensor:
        return modules["denoiser"](
            torch.empty(1, self.config.data.channels, *size, device="meta"), torch.empty(1, device="meta")
        )

    def objective(self) -> EDMObjective:
        data = self.config.data
        return EDMObjective(
            self.process,
            flip=data.flip,
            augment=data.augment,
            holes=bool(data.valid_pixels),
            channels=data.channels,
            drop=self.config.train.condition_drop,
        )

    @property
    def rates(self) -> tuple[float, ...]:
        return (1.0,)

    def objective_at(self, noise: float, rate: float) -> EDMObjective:
        sigma = noise * self.process.sigma_data
        return EDMObjective(
            self.process,
            flip=False,
            holes=bool(self.config.data.valid_pixels),
            channels=self.config.data.channels,
            sigmas=lambda batch, generator: torch.full((batch,), sigma, device=generator.device),
        )

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
        bfloat16 = self.config.train.samples_in_bfloat16(device)

        def evaluate(x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            return cast(Tensor, denoiser(x, c_noise, None, label))

        whole = repeated(calls, (size, len(indices)), lambda: in_formats(evaluate, device, bfloat16=bfloat16))

        def network(x: Tensor, c_noise: Tensor, labels: Tensor | None, known: Tensor | None) -> Tensor:
            return whole(*condition_inputs(self.config, x, c_noise, labels, known))

        images = generate(
            guided_network(network, condition),
            self.process,
            size=size,
            seed=seed,
            indices=indices,
            device=device,
            sample=self.sampler(options),
            on_step=on_step,
            channels=self.config.data.channels,
        )
        if options.deblur == "wiener":
            return self.process.mollifier.wiener_inverse(images, self.config.sample.deblur_epsilon)
        return images

    def sampler(self, options: SamplingOptions) -> Sample[float]:
        """The sampler that options name, as `pipelines.generate` takes it."""
        sampler, edm = self.samplers[options.sampler], self.config.edm
        sigmas = sigma_steps(options.steps, edm.sigma_min, edm.sigma_max, edm.rho)

        # Called with `first()` in place: a frame with a name for the first noise would keep it alive until the end.
        def sample(denoise: Denoiser[float], first: Noise, noise: Noise) -> Tensor:
            if "churn" in sampler.options:
                return sampler.run(denoise, first(), sigmas, noise=noise, s_churn=options.churn)
            return sampler.run(denoise, first(), sigmas, noise=noise)

        return sample

    def tile_rows(self, size: Size, device: torch.device) -> None:
        return None

    def feature_bytes(self, size: Size) -> int:
        # Skip connections of all levels, the lower ones a quarter of the one above, and what a block works on.
        grid = self.config.model.grid
        features_held = 2 * grid.blocks + 8
        return size[0] * size[1] * grid.channels * grid.multipliers[0] * 4 * features_held

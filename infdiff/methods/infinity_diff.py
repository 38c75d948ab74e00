"""∞-Diff (method: infinity_diff): networks on points of mollified images, with or without an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from infdiff.config.settings import InfinityDiffConfig, InfinityDiffSampling
from infdiff.coordinates import Size, scale_of
from infdiff.cuda_graphs import RepeatedCalls
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition, guided_network
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Denoiser, Network, Noise, PointNetwork, Sample
from infdiff.diffusion.samplers import SAMPLERS, VARIANCES, sampler_options
from infdiff.diffusion.schedules import SPACINGS
from infdiff.diffusion.times import DrawTimes, LognormalTimes, uniform_times
from infdiff.diffusion.weighting import WEIGHTINGS
from infdiff.errors import OptionError, UserError
from infdiff.memory import trim_heap
from infdiff.methods.conditions import condition_inputs, known_channels
from infdiff.methods.grid_networks import any_size_kinds, down_half, grid_network
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import drawn_point_count, grid_size, largest, point_count, resolutions, training_size
from infdiff.models import SparseEncoder, SparseUNet, denoise_tiled, held_tiles
from infdiff.ops import rows_around
from infdiff.ops.torchsparse_backend import why_missing
from infdiff.pipelines.generate import generate, on_all_pixels, repeated
from infdiff.precision import in_formats
from infdiff.training.objectives import MollifiedObjective

_BUSY_PIXELS = 1 << 19
# What tiles may take of a CPU's memory. Next to it are a few copies of the image, and its transform.
_TILE_BYTES = 1 << 30
# A schedule that misses more of the noise levels to train on than the rest is not meant.
_REACHED = 0.8


class InfinityDiff:
    """The paper's method, as `Method` describes one."""

    samplers = SAMPLERS
    quick_sampler = "dpm++"
    options = ("sampler", "steps", *sampler_options(SAMPLERS), "truncation")

    def __init__(self, config: InfinityDiffConfig) -> None:
        self.config = config

    @cached_property
    def process(self) -> MollifiedDiffusion:
        d = self.config.diffusion
        mollifier = Mollifier(d.sigma, training_size(self.config))
        return MollifiedDiffusion(
            mollifier,
            schedule=d.schedule,
            steps=d.steps,
            shift=d.shift,
            target=d.target,
            data_std=d.data_std,
            scaled_input=d.scaled_input,
            limits=self.config.sample.limits,
        )

    def check(self) -> None:
        config, model = self.config, self.config.model
        size, grid = training_size(config), grid_size(config)
        for resolution in resolutions(config):
            for rate in config.subsample_rates:
                point_count(config, resolution, rate)
        if model.backend == "torchsparse" and (missing := why_missing()):
            raise UserError(f"model.backend: {missing}")
        if config.sample.steps > config.diffusion.steps:
            raise UserError(
                f"sample.steps: {config.sample.steps} is more than diffusion.steps {config.diffusion.steps}"
            )
        if model.sharp and (config.diffusion.sigma == 0 or config.diffusion.target == "image"):
            raise UserError(
                "model.sharp: there is nothing to restore with diffusion.sigma: 0 or diffusion.target: image"
            )
        sampler = config.sample.sampler
        limits, channels = config.sample.limits, config.data.channels
        if len(limits) not in (0, 1, channels):
            raise UserError(f"sample.limits: {len(limits)} pairs for {channels} channels: want one, or one for each")
        for option in sampler_options(SAMPLERS):
            value = getattr(config.sample, option)
            if option not in SAMPLERS[sampler].options and value != InfinityDiffSampling.model_fields[option].default:
                takers = " or ".join(name for name, entry in SAMPLERS.items() if option in entry.options)
                raise UserError(f"sample.{option}: {value}: goes with sample.sampler: {takers} (here it is {sampler})")
        if model.scale_grid and not model.grid.any_size:
            raise UserError(
                f"model.scale_grid: a grid that follows the image wants model.grid.kind: {any_size_kinds()}"
            )
        deepest = 2 ** (len(model.grid.multipliers) - 1)
        if min(grid) < deepest:
            raise UserError(f"model.grid_size: {model.grid_size} is too small to halve for every multiplier")
        if grid[0] > size[0] or grid[1] > size[1]:
            raise UserError(f"model.grid_size: {model.grid_size} is larger than data.size {config.data.size}")
        if (train := config.train).times == "lognormal" and self.reached_times() < _REACHED:
            raise UserError(
                f"train.times_log_mean: {train.times_log_mean:g} with times_log_std {train.times_log_std:g}: the "
                f"schedule reaches only {self.reached_times():.0%} of these noise levels"
            )

    def grid(self) -> Size:
        return grid_size(self.config)

    def top_grid(self) -> Size:
        grid = self.grid()
        if not self.config.model.scale_grid:
            return grid
        down, across = scale_of(largest(resolutions(self.config)), training_size(self.config))
        return round(grid[0] * down), round(grid[1] * across)

    @property
    def deblurs(self) -> tuple[str, ...]:
        if self.config.diffusion.sigma == 0:
            return ("none",)
        restores = self.config.model.sharp or self.config.diffusion.target == "image"
        return ("network", "wiener", "none") if restores else ("wiener", "none")

    @property
    def most_steps(self) -> int:
        return self.config.diffusion.steps

    def check_options(self, options: SamplingOptions) -> None:
        if not 0 <= options.truncation < math.inf:
            raise OptionError(
                "truncation", f"{options.truncation:g}", "want 0 (the mean latent) or more; 1 is the full spread"
            )
        if not 0 <= options.eta <= 1:
            raise OptionError("eta", f"{options.eta:g}", "want 0 (deterministic) to 1 (as noisy as ddpm)")
        if options.variance not in VARIANCES:
            raise OptionError("variance", options.variance, f"want {' or '.join(VARIANCES)}")

    def networks(self) -> dict[str, nn.Module]:
        config, model = self.config, self.config.model
        operator: dict[str, Any] = {
            "kernel_size": model.kernel_size,
            "mlp_ratio": model.mlp_ratio,
            "depthwise": model.depthwise,
            "nonlinear": model.nonlinear_kernel,
            "taps": model.initial_taps,
            "backend": model.backend,
        }
        shared: dict[str, Any] = {
            **operator,
            "base": training_size(config),
            "grid": grid_size(config),
            "channels": model.channels,
            "blocks": model.blocks,
            "z_dim": model.z_dim,
            "sketch_side": model.sketch_side,
            "positions": model.positions,
            "in_channels": config.data.channels,
        }
        network = grid_network(
            model.grid,
            in_channels=model.channels,
            out_channels=model.channels,
            size=self.top_grid(),
            condition_dim=model.condition_dim,
            latent_dim=model.z_dim if model.separate_latent else 0,
            layout=model.layout,
            operator=operator,
        )
        denoiser = SparseUNet(
            network,
            condition_dim=model.condition_dim,
            scale_grid=model.scale_grid,
            gated_input=model.gated_input,
            sharp=model.sharp,
            separate_latent=model.separate_latent,
            label_dim=config.label_dim,
            condition_channels=known_channels(config),
            **shared,
        )
        modules: dict[str, nn.Module] = {"denoiser": denoiser}
        if model.z_dim:
            # Its grid stays as it is: a latent is of the function, whatever the size of the image.
            trunk = down_half(model.grid, in_channels=model.channels, size=grid_size(config), operator=operator)
            modules["encoder"] = SparseEncoder(
                trunk, global_pooling=model.global_pooling, standardized=model.standardized_latents, **shared
            )
        return modules

    def trace(self, modules: Mapping[str, nn.Module], size: Size) -> Tensor:
        count = point_count(self.config, size)
        ids = torch.empty(1, count, dtype=torch.int64, device="meta")
        x, z = torch.empty(1, count, self.config.data.channels, device="meta"), None
        if "encoder" in modules:
            encoder = cast(PointNetwork, modules["encoder"])
            z = encoder(x, encoder.geometry(ids, size))
        denoiser = cast(PointNetwork, modules["denoiser"])
        return denoiser(x, denoiser.geometry(ids, size), torch.empty(1, device="meta"), z)

    def objective(self) -> MollifiedObjective:
        config = self.config
        return MollifiedObjective(
            self.process,
            points=partial(drawn_point_count, config),
            kind=config.train.points,
            flip=config.data.flip,
            latent_noise=config.train.latent_noise,
            weighting=WEIGHTINGS[config.diffusion.weighting](config.diffusion.target),
            times=self.training_times(),
            sharp_weight=config.train.sharp_weight if config.model.sharp else 0.0,
            holes=bool(config.data.valid_pixels),
            channels=config.data.channels,
            drop=config.train.condition_drop,
        )

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(sorted({1.0, *self.config.subsample_rates}))

    def objective_at(self, noise: float, rate: float) -> MollifiedObjective:
        config = self.config
        t = 1 + int((self.process.log_ratio()[1:] - math.log(noise)).abs().argmin())
        return MollifiedObjective(
            self.process,
            points=lambda size, seed: point_count(config, size, rate),
            kind=config.train.points,
            flip=False,
            times=lambda batch, generator: torch.full((batch,), t, device=generator.device),
            holes=bool(config.data.valid_pixels),
            channels=config.data.channels,
        )

    def training_times(self) -> DrawTimes:
        """Distribution of t in training."""
        if self.config.train.times == "uniform":
            return uniform_times(self.process.steps)
        return self._lognormal()

    def reached_times(self) -> float:
        """Part of the lognormal noise levels that the schedule has a time for."""
        return self._lognormal().reached()

    def _lognormal(self) -> LognormalTimes:
        train = self.config.train
        return LognormalTimes(self.process.log_ratio(), train.times_log_mean, train.times_log_std)

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
        if options.tile is None:
            whole = self.sampled_network(denoiser, size, len(indices), device, calls)
        else:
            tiled = self._tiled_network(denoiser, options.tile)
            whole = in_formats(tiled, device, bfloat16=self.config.train.samples_in_bfloat16(device))

        def network(x: Tensor, t: Tensor, labels: Tensor | None, known: Tensor | None) -> Tensor:
            return whole(x, t, z, labels, known)

        images = generate(
            guided_network(network, condition),
            self.process,
            size=size,
            seed=seed,
            indices=indices,
            device=device,
            sample=self.sampler(options),
            denoiser=partial(self.process.denoiser, sharp_at=self.sharp_at(options)),
            on_step=on_step,
            channels=self.config.data.channels,
        )
        return self.deblurred(images, options)

    def network_at(
        self,
        denoiser: nn.Module,
        size: Size,
        z: Tensor | None,
        batch: int,
        device: torch.device,
        tile: int | None = None,
        condition: Condition = UNCONDITIONAL,
    ) -> Network:
        """The denoiser on images (B, C, H, W) of a size and a condition, with latents z (B, z_dim) or None.

        tile: rows of pixels at a time, in little memory and without gradients; None: all at once.
        """
        if tile is None:
            whole = self._conditional(on_all_pixels(cast(PointNetwork, denoiser), size, batch, device))
        else:
            whole = self._tiled_network(denoiser, tile)

        def network(x: Tensor, t: Tensor, labels: Tensor | None, known: Tensor | None) -> Tensor:
            return whole(x, t, z, labels, known)

        return guided_network(network, condition)

    def _tiled_network(self, denoiser: nn.Module, tile: int) -> Callable[..., Tensor]:
        """The denoiser `tile` rows at a time, as `sampled_network` has it."""

        def tiled(x: Tensor, t: Tensor, z: Tensor | None, *label: Tensor) -> Tensor:
            trim_heap()
            out = denoise_tiled(cast(SparseUNet, denoiser), x, t, z, tile, *label)
            trim_heap()
            return out

        return self._conditional(tiled)

    def _conditional(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A network on what `condition_inputs` makes as one of x, t, and of z, labels and known channels, if any."""

        def conditional(
            x: Tensor,
            t: Tensor,
            z: Tensor | None = None,
            labels: Tensor | None = None,
            known: Tensor | None = None,
        ) -> Tensor:
            x, t, *label = condition_inputs(self.config, x, t, labels, known)
            return network(x, t, z, *label)

        return conditional

    def sampled_network(
        self, denoiser: nn.Module, size: Size, batch: int, device: torch.device, calls: RepeatedCalls | None = None
    ) -> Callable[..., Tensor]:
        """The denoiser as it samples images (B, C, H, W) of a size, all rows at once.

        A function of x, t, and of z, labels and known channels, as far as there are any. Without gradients, in the
        format of samples. calls: as in `Method.generate`.
        """
        bfloat16 = self.config.train.samples_in_bfloat16(device)

        def make() -> Callable[..., Tensor]:
            whole = on_all_pixels(cast(PointNetwork, denoiser), size, batch, device)
            if not self.config.label_dim:
                return in_formats(whole, device, bfloat16=bfloat16)
            # Of what is optional, labels come first: they are always there.
            return in_formats(lambda x, t, label, z=None: whole(x, t, z, label), device, bfloat16=bfloat16)

        repeatable = repeated(calls, (size, batch), make)

        def network(
            x: Tensor,
            t: Tensor,
            z: Tensor | None = None,
            labels: Tensor | None = None,
            known: Tensor | None = None,
        ) -> Tensor:
            latent = () if z is None else (z,)
            return repeatable(*condition_inputs(self.config, x, t, labels, known), *latent)

        return network

    def times(self, steps: int) -> list[int]:
        """The times of `steps` sampling steps."""
        return SPACINGS[self.config.sample.spacing](self.process.alpha_bar, steps)

    def sampler(self, options: SamplingOptions) -> Sample[int]:
        """The sampler that options name, as `pipelines.generate` takes it."""
        sampler, times, bars = self.samplers[options.sampler], self.times(options.steps), self.process.alpha_bar

        # Called with `first()` in place: a frame with a name for the first noise would keep it alive until the end, and
        # so would a tuple of arguments, as a call with ** makes.
        def sample(denoise: Denoiser[int], first: Noise, noise: Noise) -> Tensor:
            if "eta" in sampler.options:
                return sampler.run(denoise, first(), times, alpha_bar=bars, noise=noise, eta=options.eta)
            if "variance" in sampler.options:
                return sampler.run(denoise, first(), times, alpha_bar=bars, noise=noise, variance=options.variance)
            return sampler.run(denoise, first(), times, alpha_bar=bars, noise=noise)

        return sample

    def sharp_at(self, options: SamplingOptions) -> int | None:
        """The time of the last step, where the network's second output makes the estimate sharp; None without."""
        return self.times(options.steps)[-2] if options.deblur == "network" else None

    def deblurred(self, images: Tensor, options: SamplingOptions, process: MollifiedDiffusion | None = None) -> Tensor:
        """The images (B, C, H, W) that a sampler of a process made, by the Wiener inverse where the options say so.

        process: by default the run's own.
        """
        if options.deblur != "wiener":
            return images
        return (process or self.process).mollifier.wiener_inverse(images, self.config.sample.deblur_epsilon)

    def tile_rows(self, size: Size, device: torch.device) -> int | None:
        if self.config.model.grid.on_points:
            return None
        # As high as the rows that are read above and below a tile, and filtered again for each: lower tiles take hardly
        # less memory, higher ones much more. But with enough pixels to keep a device busy, if a CPU has room for them.
        model = self.config.model
        reach = rows_around(model.kernel_size, scale_of(size, training_size(self.config)))
        reach *= 2 if model.nonlinear_kernel else 1
        busy = _BUSY_PIXELS // size[1]
        if device.type == "cpu":
            busy = min(busy, _TILE_BYTES // (held_tiles(model.blocks) * size[1] * model.channels * 4))
        return max(reach, busy, 1)

    def feature_bytes(self, size: Size) -> int:
        features_held = self.config.model.blocks + 6
        return size[0] * size[1] * self.config.model.channels * 4 * features_held

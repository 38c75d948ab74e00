"""A trained model on tensors: sample, encode and decode images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.config.settings import Config
from infdiff.coordinates import Size, covering
from infdiff.cuda_graphs import RepeatedCalls, recorder_for
from infdiff.data.fields import FieldDescription
from infdiff.data.labels import LabelDescription
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.diffusion.dct import resample
from infdiff.errors import OptionError, UserError
from infdiff.images.pixels import to_uint8
from infdiff.methods.infinity_diff import InfinityDiff
from infdiff.methods.method import Method, build_modules, method_of
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import point_count, training_size
from infdiff.models import SparseEncoder
from infdiff.pipelines.generate import encode
from infdiff.pipelines.super_resolve import super_resolve_in_windows
from infdiff.pipelines.windows import WindowModel, window_of
from infdiff.precision import with_bfloat16_weights
from infdiff.runs.conditions import (
    NO_CONDITIONS,
    Conditions,
    ConditionsAt,
    ConditionSource,
    conditions_for,
)
from infdiff.runs.fields import condition_field, generated_field
from infdiff.runs.folder import RunFolder
from infdiff.runs.kept_records import read_record
from infdiff.runs.latents import LatentSource, latents_of
from infdiff.seeding import generator_for

# Sizes and batches whose graphs are kept, each with the memory of one evaluation.
_MOST_SIZES = 3

ASPECTS = ("stretch", "keep")

# Called after each evaluation of the network.
OnStep = Callable[[], object]


@dataclass(frozen=True)
class TrainedModel:
    """The EMA weights of one checkpoint and the method that they were trained for, on a device, ready to use.

    Image `indices[i]` of a call depends on (seed, indices[i]) alone. Images are uint8; with rounded=False they are
    float32 in [-1, 1] instead, so that non-finite pixels remain visible. Fields are float32 and normalised (`field`
    says what their values are in units), with NaN at missing pixels.
    """

    folder: RunFolder
    config: Config
    step: int
    method: Method
    denoiser: nn.Module
    encoder: SparseEncoder | None
    device: torch.device
    stored_field: FieldDescription | None = None  # of a run of fields: of all channels of its data
    labels: LabelDescription | None = None  # of a run with labels

    @classmethod
    def load(cls, folder: str | Path, device: torch.device, which: str = "last") -> TrainedModel:
        """Load a checkpoint: "last", "best" (see `checkpoint.best_step`) or a step.

        Raises UserError when the directory is missing, holds no checkpoint, or is damaged.
        """
        run = RunFolder(Path(folder))
        config = run.config()
        step = run.checkpoint(which)
        modules = build_modules(config)
        for name, module in modules.items():
            try:
                module.load_state_dict(run.weights(step, name))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"{run}: the weights of step {step} do not fit config.yaml: {reason}") from error
            module.to(device).eval().requires_grad_(False)
        encoder = cast(SparseEncoder | None, modules.get("encoder"))
        return cls(
            run,
            config,
            step,
            method_of(config),
            modules["denoiser"],
            encoder,
            device,
            read_record(run.field_file, FieldDescription.from_record),
            read_record(run.labels_file, LabelDescription.from_record),
        )

    @cached_property
    def field(self) -> FieldDescription | None:
        """The description of what a run of fields generates."""
        return generated_field(self.config, self.stored_field)

    @cached_property
    def known_field(self) -> FieldDescription | None:
        """The description of the condition channels; None where there are none."""
        return condition_field(self.config, self.stored_field)

    @property
    def parameter_counts(self) -> dict[str, int]:
        """The number of parameters of each network."""
        modules: dict[str, nn.Module | None] = {"denoiser": self.denoiser, "encoder": self.encoder}
        return {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items() if m is not None}

    @cached_property
    def sampled_denoiser(self) -> nn.Module:
        """The denoiser that draws images: a copy in bfloat16 where they are drawn in it, else the denoiser itself."""
        if not self.config.train.samples_in_bfloat16(self.device):
            return self.denoiser
        return with_bfloat16_weights(self.denoiser)

    @cached_property
    def calls(self) -> RepeatedCalls | None:
        """The denoiser at the sizes and batches drawn last, with their geometry, as CUDA graphs; None elsewhere."""
        recorder = recorder_for(self.device)
        return None if recorder is None else RepeatedCalls(recorder, most=_MOST_SIZES)

    @cached_property
    def latents(self) -> LatentSource | None:
        """The source of latents for new images, read or fitted at first use; None without encoder."""
        if self.encoder is None:
            return None
        return latents_of(self.folder, self.step, self.config, self.encode, self.device)

    def record_latents(self) -> dict[str, Any]:
        """Return what latents of new images depend on, beyond the weights of the run."""
        return {"latents": self.describe_latents()} if self.latents is None else self.latents.record()

    def describe_latents(self) -> str:
        """Return a phrase that says where latents of new images come from."""
        return "none (the run has no encoder)" if self.latents is None else self.latents.describe()

    @property
    def infinity_diff(self) -> InfinityDiff:
        """The method of a run of ∞-Diff. Raises UserError for a run of another method."""
        if not isinstance(self.method, InfinityDiff):
            method = self.config.method
            raise UserError(f"{self.folder} is a run of method {method}: this wants one of method infinity_diff")
        return self.method

    def require_encoder(self) -> SparseEncoder:
        """Return the encoder. Raises UserError for a run that was trained without one."""
        if self.encoder is None:
            raise UserError(f"{self.folder} was trained without an encoder (model.z_dim: 0)")
        return self.encoder

    def sample(
        self,
        indices: Sequence[int],
        size: Size,
        *,
        seed: int,
        options: SamplingOptions,
        aspect: str = "stretch",
        conditions: ConditionSource = NO_CONDITIONS,
        rounded: bool = True,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return new images (B, C, H, W): the middle of those of `drawn_size`, which `options` are for.

        conditions: those of `conditions_for`, at the size that the network sees. Latents are drawn for labels, too.
        """
        z, condition = None, conditions.of(indices, self.device)
        if self.latents is not None:
            generators = [generator_for(self.device, seed, "latent", i) for i in indices]
            z = self.latents.sample(generators, options.truncation, condition)
        images = self._generate(z, self.drawn_size(size, aspect), indices, seed, options, rounded, on_step, condition)
        top, left = (images.shape[2] - size[0]) // 2, (images.shape[3] - size[1]) // 2
        return images[:, :, top : top + size[0], left : left + size[1]]

    def conditions(self, size: Size, options: SamplingOptions, aspect: str = "stretch", **given: Any) -> Conditions:
        """Return the conditions of images of a size from the options of a caller, as `conditions_for`."""
        drawn = self.drawn_size(size, aspect)
        if given.get("condition") is not None and drawn != size:
            raise OptionError("aspect", aspect, "does not go with condition: it is of all of the image")
        sampled = options.sampled_at(drawn, training_size(self.config))
        return conditions_for(self.labels, self.known_field, sampled, **given)

    def conditions_at(
        self,
        *,
        label: str | None = None,
        vector: Sequence[float] | None = None,
        condition: Any = None,
        condition_weight: float | None = None,
    ) -> ConditionsAt:
        """Return the conditions of restored images of any size, as `conditions_for`.

        condition_weight: of classifier-free guidance. Raises OptionError for what the run does not know.
        """

        def at(size: Size) -> Conditions:
            return conditions_for(
                self.labels,
                self.known_field,
                size,
                label=label,
                vector=vector,
                condition=condition,
                guidance=condition_weight,
                weight_option="condition_weight",
            )

        at(training_size(self.config))  # refused here, and not when work has begun
        return at

    def drawn_size(self, size: Size, aspect: str) -> Size:
        """Return the size at which images of a size are drawn.

        aspect: "stretch" draws the unit square of the training images at that size; "keep" at one of their proportions
        that holds it. Raises OptionError for anything else.
        """
        if aspect not in ASPECTS:
            raise OptionError("aspect", aspect, f"want {' or '.join(ASPECTS)}")
        return covering(size, training_size(self.config)) if aspect == "keep" else size

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return latents (B, z_dim) of images (B, C, H, W), from a subset of their pixels, without condition channels.

        Raises UserError for a run without encoder.
        """
        points, images = point_count(self.config), images[:, : self.config.data.channels]
        return encode(self.require_encoder(), images.to(self.device), points=points, seed=self.config.seed)

    def decode(
        self,
        z: Tensor,
        size: Size,
        *,
        options: SamplingOptions,
        seed: int = 0,
        indices: Sequence[int] | None = None,
        rounded: bool = True,
    ) -> Tensor:
        """Return images (B, 3, H, W) of any size of latents (B, z_dim); image i depends on z[i].

        indices: from 0 by default. Raises UserError for a run without encoder.
        """
        self.require_encoder()
        indices = range(len(z)) if indices is None else indices
        return self._generate(z.to(self.device), size, indices, seed, options, rounded, None)

    def reconstruct(
        self,
        images: Tensor,
        *,
        options: SamplingOptions,
        seed: int = 0,
        indices: Sequence[int] | None = None,
        rounded: bool = True,
    ) -> Tensor:
        """Return images (B, 3, H, W) uint8 encoded and decoded again at their own size."""
        z, size = self.encode(images), (images.shape[2], images.shape[3])
        return self.decode(z, size, options=options, seed=seed, indices=indices, rounded=rounded)

    def _generate(
        self,
        z: Tensor | None,
        size: Size,
        indices: Sequence[int],
        seed: int,
        options: SamplingOptions,
        rounded: bool,
        on_step: OnStep | None,
        condition: Condition = UNCONDITIONAL,
    ) -> Tensor:
        """Sample at one size and, where the options say so, resize to another."""
        sampled = options.sampled_at(size, training_size(self.config))
        images = self.method.generate(
            self.sampled_denoiser,
            size=sampled,
            seed=seed,
            indices=indices,
            z=z,
            device=self.device,
            options=options,
            condition=condition,
            on_step=on_step,
            calls=self.calls,
        )
        if size != sampled and options.upscale == "windows":
            images = self.enlarge_in_windows(images, size, seed, indices, options, on_step)
        elif size != sampled and options.upscale == "cosine":
            images = resample(images, size)
        elif size != sampled:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.as_asked(images, rounded)

    def enlarge_in_windows(
        self,
        small: Tensor,
        size: Size,
        seed: int,
        indices: Sequence[int],
        options: SamplingOptions,
        on_step: OnStep | None,
        condition: Condition = UNCONDITIONAL,
    ) -> Tensor:
        """Return images (B, 3, h, w) in [-1, 1] at a larger size, with detail; condition: at that size.

        Raises UserError without encoder.
        """
        return super_resolve_in_windows(
            self.window_model(size, options),
            small,
            size=size,
            seed=seed,
            steps=options.steps,
            indices=indices,
            condition=condition,
            on_step=on_step,
        )

    def window_model(self, size: Size, options: SamplingOptions) -> WindowModel:
        """Return what draws detail in images of a size, in windows of the training size.

        Raises UserError for a run without encoder.
        """
        self.require_encoder()
        trained, window = self.infinity_diff, window_of(size, training_size(self.config))
        process = trained.process.with_pixels_of(size)
        return WindowModel(
            encode=lambda windows: self.encode(self.as_held(windows)),
            network_for=lambda count: trained.sampled_network(
                self.sampled_denoiser, window, count, self.device, self.calls
            ),
            process=process,
            window=window,
            sharp=options.deblur == "network",
            deblur=lambda images: trained.deblurred(images, options, process),
        )

    def as_held(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) that the network made, as data sets hold them: uint8, or fields as they are."""
        return to_uint8(images) if self.field is None else images.float()

    def as_asked(self, images: Tensor, rounded: bool) -> Tensor:
        """The same on the CPU; not rounded, as float32.

        Raises UserError for pixels that are not finite, of which no image can be made.
        """
        if rounded and not images.isfinite().all():
            raise UserError(
                "pixels are not finite: the weights are damaged, or training went wrong; --checkpoint has others"
            )
        return (self.as_held(images) if rounded else images.float()).cpu()

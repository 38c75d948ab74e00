"""A trained model on tensors: sample, encode, decode, enlarge, fill and interpolate images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.config import Config
from infdiff.coordinates import Size
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.errors import UserError
from infdiff.images.pixels import from_uint8, to_uint8
from infdiff.methods.method import Method, build_modules, method_of
from infdiff.methods.sizes import point_count, training_size
from infdiff.pipelines.generate import encode
from infdiff.pipelines.inpaint import encode_visible, inpaint, paste
from infdiff.pipelines.interpolate import interpolate
from infdiff.pipelines.super_resolve import super_resolve
from infdiff.runs.folder import RunFolder
from infdiff.runs.latents import LatentSource, latents_of
from infdiff.seeding import generator_for


@dataclass(frozen=True)
class TrainedModel:
    """The EMA weights of one checkpoint and the method that they were trained for, on a device, ready to use.

    Image `indices[i]` of a call depends on (seed, indices[i]) alone. Images are uint8; with rounded=False they are
    float32 in [-1, 1] instead, so that non-finite pixels remain visible.
    """

    folder: RunFolder
    config: Config
    step: int
    method: Method
    denoiser: nn.Module
    encoder: nn.Module | None
    device: torch.device

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
        return cls(run, config, step, method_of(config), modules["denoiser"], modules.get("encoder"), device)

    @property
    def parameter_counts(self) -> dict[str, int]:
        """The number of parameters of each network."""
        modules = {"denoiser": self.denoiser, "encoder": self.encoder}
        return {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items() if m is not None}

    @cached_property
    def latents(self) -> LatentSource | None:
        """The source of latents for new images, read or fitted at first use; None without encoder."""
        if self.encoder is None:
            return None
        return latents_of(self.folder, self.step, self.config, self.encode, self.device)

    def describe_latents(self) -> str:
        """Return a phrase that says where latents of new images come from."""
        return "none (the run has no encoder)" if self.latents is None else self.latents.describe()

    @property
    def process(self) -> MollifiedDiffusion:
        """The mollified diffusion. Raises UserError for a run of another method."""
        process = self.method.process
        if not isinstance(process, MollifiedDiffusion):
            method = self.config.method
            raise UserError(f"{self.folder} is a run of method {method}: this wants one of method infinity_diff")
        return process

    def require_encoder(self) -> nn.Module:
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
        truncation: float = 1.0,
        upscale: str = "none",
        **options: Any,
    ) -> Tensor:
        """Return new images (B, 3, H, W).

        upscale: "bilinear" samples at the training size and resizes. options: deblur, and those of `Method.generate`.
        """
        z = None
        if self.latents is not None:
            z = self.latents.sample([generator_for(self.device, seed, "latent", i) for i in indices], truncation)
        sampled = training_size(self.config) if upscale == "bilinear" else size
        return self._generate(z, size, indices, sampled=sampled, seed=seed, **options)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return latents (B, z_dim) of images (B, 3, H, W) uint8, from a subset of their pixels.

        Raises UserError for a run without encoder.
        """
        points = point_count(self.config)
        return encode(self.require_encoder(), images.to(self.device), points=points, seed=self.config.seed)

    def decode(
        self, z: Tensor, size: Size, *, seed: int = 0, indices: Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        """Return images (B, 3, H, W) of any size of latents (B, z_dim); image i depends on z[i], too.

        indices: from 0 by default. options: as `sample`'s. Raises UserError for a run without encoder.
        """
        self.require_encoder()
        numbers = range(len(z)) if indices is None else indices
        return self._generate(z.to(self.device), size, numbers, sampled=size, seed=seed, **options)

    def reconstruct(self, images: Tensor, *, seed: int = 0, **options: Any) -> Tensor:
        """Return images (B, 3, H, W) uint8 encoded and decoded again at their own size. options: as `decode`'s."""
        return self.decode(self.encode(images), (images.shape[2], images.shape[3]), seed=seed, **options)

    def _generate(
        self,
        z: Tensor | None,
        size: Size,
        indices: Sequence[int],
        *,
        sampled: Size,
        seed: int,
        deblur: bool = False,
        rounded: bool = True,
        **options: Any,
    ) -> Tensor:
        """Sample at one size and resize to another."""
        images = self.method.generate(
            self.denoiser, size=sampled, seed=seed, indices=indices, z=z, device=self.device, **options
        )
        if deblur:
            images = self.method.deblur(images)
        if size != sampled:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return _finished(images, rounded)

    @torch.no_grad()
    def super_resolve(
        self, images: Tensor, size: Size, *, seed: int = 0, rounded: bool = True, **options: Any
    ) -> Tensor:
        """Return small images (B, 3, h, w) uint8 at a larger size, (B, 3, H, W).

        options: as `pipelines.super_resolve`. Raises UserError for a run without encoder.
        """
        z = self.encode(images)
        small = from_uint8(images.to(self.device))
        out = super_resolve(self.denoiser, self.process, small, size=size, z=z, seed=seed, **options)
        return _finished(out, rounded)

    @torch.no_grad()
    def interpolate(self, images: Tensor, frames: int, **options: Any) -> Tensor:
        """Return (frames, 3, H, W) uint8 from the first to the second of two images (2, 3, H, W) uint8, both included.

        options: as `pipelines.interpolate`. Raises UserError for a run without encoder.
        """
        z = self.encode(images)
        ends = from_uint8(images.to(self.device))
        return _finished(interpolate(self.denoiser, self.process, ends, z=z, frames=frames, **options), rounded=True)

    @torch.no_grad()
    def inpaint(
        self,
        image: Tensor,
        hidden: Tensor,
        indices: Sequence[int],
        *,
        seed: int = 0,
        variety: float = 0.0,
        pasted: bool = True,
        **options: Any,
    ) -> Tensor:
        """Return variants (N, 3, H, W) uint8 of an image (1, 3, H, W) uint8 with new content in `hidden` (H, W) bool.

        variety: how far the latent of the visible pixels is diffused, 0 to 1; more than 0 needs a latent model.
        pasted: the visible pixels are the image's exactly. options: as `pipelines.inpaint`. Raises UserError when a
        model that this needs is missing.
        """
        process = self.process
        image, hidden = image.to(self.device), hidden.to(self.device)
        z = self._latents_around(image, hidden, indices, seed, variety)
        clean = from_uint8(image)
        out = inpaint(self.denoiser, process, clean, hidden, z=z, seed=seed, indices=indices, **options)
        if not pasted:
            return _finished(out, rounded=True)
        return torch.where(hidden, to_uint8(paste(out, clean, hidden)), image).cpu()

    def _latents_around(
        self, image: Tensor, hidden: Tensor, indices: Sequence[int], seed: int, variety: float
    ) -> Tensor | None:
        """Return a latent for each variant: new ones if every pixel is hidden, None without encoder."""
        generators = [generator_for(self.device, seed, "latent", i) for i in indices]
        if self.encoder is None:
            return None
        if bool(hidden.all()):
            return None if self.latents is None else self.latents.sample(generators)
        latent = encode_visible(self.encoder, image, hidden, points=point_count(self.config), seed=seed)
        if variety == 0 or self.latents is None:
            return latent.expand(len(generators), -1)
        return self.latents.vary(latent, generators, variety)


def _finished(images: Tensor, rounded: bool) -> Tensor:
    return (to_uint8(images) if rounded else images.float()).cpu()

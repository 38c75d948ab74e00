"""A run directory: what training leaves behind, and how it is read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.config import Config, config_differences, load_config, save_config
from infdiff.coordinates import Size
from infdiff.data.batches import first_batches
from infdiff.data.latents import encode_images
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.errors import UserError
from infdiff.images.pixels import from_uint8, to_uint8
from infdiff.methods.method import Method, method_of
from infdiff.methods.sizes import point_count, training_size
from infdiff.pipelines.generate import encode
from infdiff.pipelines.inpaint import encode_visible, inpaint, paste
from infdiff.pipelines.interpolate import interpolate
from infdiff.pipelines.super_resolve import super_resolve
from infdiff.runs.data import build_data, build_modules
from infdiff.runs.latents import LatentGaussian, LatentModel
from infdiff.seeding import generator_for
from infdiff.training import checkpoint

RUNS = Path("runs")

# Settings that may change between two calls of the same run. (Where the learning rate falls towards the end,
# another number of steps moves the fall.)
_MAY_CHANGE = (
    "name",
    "train.steps",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_bad_steps",
    "train.validation_images",
    "train.eval_every",
    "train.eval_images",
    "data.cache",
    "data.workers",
    "latent",
    "sample",
)
# Enough latents for mean and covariance; encoding more only takes longer.
_MOST_LATENTS = 4096


def open_for_training(folder: Path, config: Config) -> None:
    """Make the run directory, or check that it holds a run of the same configuration.

    Raises UserError naming the settings that differ, and for a fine-tuning that starts from no run.
    """
    if config.finetune.size and not config.finetune.run:
        raise UserError("fine-tuning starts from a run: name it with --finetune RUN")
    claim_folder(folder, config, may_change=_MAY_CHANGE, remedy="choose another --out")
    try:
        (folder / "samples").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error


def claim_folder(
    folder: Path, config: Config, *, may_change: Sequence[str], remedy: str = "delete it to start anew"
) -> None:
    """Make a folder that holds its configuration, or check that it holds the same one but for `may_change`.

    Raises UserError naming the settings that differ.
    """
    path = folder / "config.yaml"
    if path.exists():
        changed = config_differences(load_config(path), config, ignore=may_change)
        if changed:
            raise UserError(f"{folder} holds a run with other settings ({'; '.join(changed)}): {remedy}")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty and holds no run: {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "config.yaml.partial"
        save_config(config, temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error


def newest_run() -> Path:
    """The run under runs/ trained last. Raises UserError when there is none."""
    runs = [p.parent for p in RUNS.glob("*/config.yaml")]
    if not runs:
        raise UserError(f"no run in {RUNS}/: train one with scripts/train.py, or name it with --run")
    return max(runs, key=lambda p: (p / "config.yaml").stat().st_mtime)


@dataclass(frozen=True)
class Run:
    """A trained model: the averaged weights of one checkpoint, on a device, ready to use."""

    folder: Path
    config: Config
    step: int
    method: Method
    denoiser: nn.Module
    encoder: nn.Module | None
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: torch.device, which: str = "last") -> Run:
        """`which` is "last", "best" (as `checkpoint.best_step`) or a step.

        Raises UserError when the directory is missing, holds no checkpoint, or is damaged.
        """
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not a run directory (no config.yaml): train one with scripts/train.py")
        config = load_config(folder / "config.yaml")
        checkpoints = folder / "checkpoints"
        steps = checkpoint.checkpoint_steps(checkpoints)
        if not steps:
            raise UserError(f"{folder} holds no checkpoint yet: let scripts/train.py reach one")
        step = _choose(checkpoints, steps, which)
        modules = build_modules(config)
        for name, module in modules.items():
            tensors = checkpoint.load_tensors(checkpoints, step, f"ema_{name}")
            try:
                module.load_state_dict(tensors)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"{folder}: the weights of step {step} do not fit config.yaml: {reason}") from error
            module.to(device).eval().requires_grad_(False)
        return cls(folder, config, step, method_of(config), modules["denoiser"], modules.get("encoder"), device)

    @property
    def parameter_counts(self) -> dict[str, int]:
        """How many parameters each network has."""
        modules = {"denoiser": self.denoiser, "encoder": self.encoder}
        return {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items() if m is not None}

    @cached_property
    def latents(self) -> LatentModel | LatentGaussian | None:
        """What draws latents: the latent diffusion model if one is trained for this checkpoint, else a Gaussian.

        The Gaussian is fitted to latents of training images at first use, and kept beside the run. None without
        encoder.
        """
        if self.encoder is None:
            return None
        if (model := LatentModel.load(self.folder, self.step, self.device)) is not None:
            return model
        path = self.folder / f"latents-{self.step:08d}.safetensors"
        if not path.exists():
            self._fit_latents().save(path)
        return LatentGaussian.load(path)

    def describe_latents(self) -> str:
        """Where sampled latents come from, for people."""
        return "none (the run has no encoder)" if self.latents is None else self.latents.describe()

    @property
    def process(self) -> MollifiedDiffusion:
        """Of the mollified diffusion. Raises UserError for a run of another kind."""
        process = self.method.process
        if not isinstance(process, MollifiedDiffusion):
            kind = self.config.model.kind
            raise UserError(f"{self.folder} is of model.kind {kind}: this wants a run of model.kind points")
        return process

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
        """Images (B, 3, H, W) uint8; image indices[i] depends on (seed, indices[i]) alone.

        upscale: "bilinear" samples at the training size and resizes. options: deblur, and those of `Method.generate`.
        Here and below, rounded=False gives float32 in [-1, 1] instead, in which pixels that are not finite show.
        """
        z = None
        if self.latents is not None:
            z = self.latents.sample([generator_for(self.device, seed, "latent", i) for i in indices], truncation)
        sampled = training_size(self.config) if upscale == "bilinear" else size
        return self._generate(z, size, indices, sampled=sampled, seed=seed, **options)

    def reconstruct(self, images: Tensor, *, seed: int = 0, **options: Any) -> Tensor:
        """Images (B, 3, H, W) uint8 through their latents and back. Raises UserError for a run without encoder.

        options: as `decode`.
        """
        self.require_encoder()
        size = (images.shape[2], images.shape[3])
        return self.decode(self.encode(images.to(self.device)), size, seed=seed, **options)

    def decode(
        self, z: Tensor, size: Size, *, seed: int = 0, indices: Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        """Latents (B, z_dim) -> images (B, 3, H, W) uint8 of any size.

        Image i depends on (seed, indices[i]) and z[i] alone; indices: by default from 0.
        """
        self.require_encoder()
        z = z.to(self.device)
        numbers = range(len(z)) if indices is None else indices
        return self._generate(z, size, numbers, sampled=size, seed=seed, **options)

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
        """Sampled at one size, resized to another."""
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
        """Small images (B, 3, h, w) uint8 -> (B, 3, H, W) uint8 of `size`. options: as `pipelines.super_resolve`.

        Raises UserError for a run without encoder.
        """
        self.require_encoder()
        images = images.to(self.device)
        z = self.encode(images)
        out = super_resolve(self.denoiser, self.process, from_uint8(images), size=size, z=z, seed=seed, **options)
        return _finished(out, rounded)

    @torch.no_grad()
    def interpolate(self, images: Tensor, frames: int, **options: Any) -> Tensor:
        """From the first to the second of two images (2, 3, H, W) uint8: (frames, 3, H, W) uint8, both ends included.

        options: as `pipelines.interpolate`. Raises UserError for a run without encoder.
        """
        self.require_encoder()
        images = images.to(self.device)
        z = self.encode(images)
        out = interpolate(self.denoiser, self.process, from_uint8(images), z=z, frames=frames, **options)
        return to_uint8(out).cpu()

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
        """Variants (N, 3, H, W) uint8 of an image (1, 3, H, W) uint8 whose hidden pixels (H, W) bool are made up.

        variety: how far the latent of the visible pixels is diffused, 0 to 1; more than 0 wants a latent model. pasted:
        the visible pixels are the image's exactly. options: as `pipelines.inpaint`. Raises UserError when a model
        that this needs is missing.
        """
        process = self.process
        image, hidden = image.to(self.device), hidden.to(self.device)
        generators = [generator_for(self.device, seed, "latent", i) for i in indices]
        if bool(hidden.all()):
            z = None if self.latents is None else self.latents.sample(generators)
        elif self.encoder is None:
            z = None
        else:
            latent = encode_visible(self.encoder, image, hidden, points=point_count(self.config), seed=seed)
            z = self._varied(latent, generators, variety)
        clean = from_uint8(image)
        out = inpaint(self.denoiser, process, clean, hidden, z=z, seed=seed, indices=indices, **options)
        if not pasted:
            return to_uint8(out).cpu()
        return torch.where(hidden, to_uint8(paste(out, clean, hidden)), image).cpu()

    def require_encoder(self) -> None:
        """Raise UserError when the run was trained without an encoder."""
        if self.encoder is None:
            raise UserError(f"{self.folder} was trained without an encoder (model.z_dim: 0)")

    def _varied(self, latent: Tensor, generators: list[torch.Generator], variety: float) -> Tensor:
        if variety == 0:
            return latent.expand(len(generators), -1)
        if not isinstance(self.latents, LatentModel):
            raise UserError(
                f"variety {variety:g} diffuses latents, and {self.folder} has no latent model for step {self.step}: "
                "train one with scripts/train_latent.py"
            )
        return self.latents.vary(latent, generators, variety)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, z_dim) of images (B, 3, H, W) uint8, from a part of their pixels. There must be an encoder."""
        assert self.encoder is not None
        return encode(self.encoder, images, points=point_count(self.config), seed=self.config.seed)

    def _fit_latents(self) -> LatentGaussian:
        """From training images; flipped ones too, where training flips."""
        data = build_data(replace(self.config, data=replace(self.config.data, cache="none")), self.device)
        flips: list[Callable[[Tensor], Tensor]] = [lambda batch: batch]
        if self.config.data.flip:
            flips.append(lambda batch: batch.flip(-1))
        latents = [
            encode_images(
                lambda batch, flip=flip: self.encode(flip(batch)),
                first_batches(data.train, 64, _MOST_LATENTS, self.device),
            )
            for flip in flips
        ]
        return LatentGaussian.fit(torch.cat(latents))


def _finished(images: Tensor, rounded: bool) -> Tensor:
    return (to_uint8(images) if rounded else images.float()).cpu()


def _choose(checkpoints: Path, steps: list[int], which: str) -> int:
    if which == "last":
        return steps[-1]
    if which == "best":
        best = checkpoint.best_step(checkpoints)
        return steps[-1] if best is None else best
    if not which.isdigit() or int(which) not in steps:
        raise UserError(f"--checkpoint {which}: choose last, best or one of {', '.join(map(str, steps))}")
    return int(which)

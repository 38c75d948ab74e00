"""The trained latent diffusion model of a run: latents from noise."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from infdiff.config import Config, load_config
from infdiff.data.latents import Latents, load_latents
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.samplers import ddim
from infdiff.diffusion.schedules import sampling_times
from infdiff.errors import UserError
from infdiff.models.latent_mlp import LatentMLP
from infdiff.training import checkpoint


def latent_folder(run_folder: Path, step: int) -> Path:
    """Where the latents and the latent model of one checkpoint of a run are kept."""
    return run_folder / "latents" / f"{step:08d}"


def encoder_fingerprint(run_folder: Path, step: int) -> str:
    """Tells one encoder from another: a hash of its averaged weights."""
    path = run_folder / "checkpoints" / f"{step:08d}" / "ema_encoder.safetensors"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def build_latent(config: Config) -> tuple[LatentMLP, GaussianDiffusion]:
    """The network with fresh weights, a function of the seed, and its process."""
    torch.manual_seed(config.seed)
    latent = config.latent
    network = LatentMLP(config.model.z_dim, width=latent.width, layers=latent.layers)
    return network, GaussianDiffusion(schedule=latent.schedule, steps=latent.diffusion_steps)


@dataclass(frozen=True)
class LatentGaussian:
    """z = mean + factor^T xi: mean (z_dim,), factor (K, z_dim). Fitted to `count` latents."""

    mean: Tensor
    factor: Tensor
    count: int

    @classmethod
    def fit(cls, latents: Tensor) -> LatentGaussian:
        """The Gaussian with the mean and covariance of latents (N, z_dim), whatever N."""
        mean = latents.mean(dim=0)
        centred = (latents - mean) / max(1, len(latents) - 1) ** 0.5
        # centred^T centred is the covariance; R of centred = QR has the same and never more rows than columns.
        factor = torch.linalg.qr(centred, mode="r").R if len(latents) > latents.shape[1] else centred
        return cls(mean, factor, len(latents))

    def sample(self, generators: list[torch.Generator], truncation: float = 1.0) -> Tensor:
        """(B, z_dim): row i from generators[i] alone. truncation scales the spread about the mean."""
        noise = torch.cat([torch.randn(1, self.factor.shape[0], device=g.device, generator=g) for g in generators])
        return self.mean.to(noise) + truncation * noise @ self.factor.to(noise)

    def describe(self) -> str:
        return f"a Gaussian fitted to the latents of {self.count} training images (no latent model is trained)"

    def save(self, path: Path) -> None:
        # Processes that sample side by side may all fit it at once.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        safetensors.torch.save_file(
            {"mean": self.mean, "factor": self.factor.contiguous(), "count": torch.tensor(self.count)}, temporary
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentGaussian:
        tensors = safetensors.torch.load_file(path)
        return cls(tensors["mean"], tensors["factor"], int(tensors["count"]))


@dataclass(frozen=True)
class LatentModel:
    """The averaged weights with the lowest validation loss, ready to draw latents."""

    network: nn.Module
    process: GaussianDiffusion
    latents: Latents
    encoder: str  # the fingerprint of the encoder that made them
    sample_steps: int
    step: int
    device: torch.device

    @classmethod
    def load(cls, run_folder: Path, step: int, device: torch.device) -> LatentModel | None:
        """Of a run's checkpoint; None when none is trained for it."""
        folder = latent_folder(run_folder, step)
        checkpoints = folder / "checkpoints"
        best = checkpoint.best_step(checkpoints)
        if best is None:
            return None
        encoder = encoder_fingerprint(run_folder, step)
        latents = load_latents(folder, encoder)
        if latents is None:
            return None
        config = load_config(folder / "config.yaml")
        network, process = build_latent(config)
        network.load_state_dict(checkpoint.load_tensors(checkpoints, best, "ema_latent"))
        network.to(device).eval().requires_grad_(False)
        return cls(network, process, latents, encoder, config.latent.sample_steps, best, device)

    @torch.no_grad()
    def sample(self, generators: list[torch.Generator], truncation: float = 1.0) -> Tensor:
        """(B, z_dim): row i from generators[i] alone, by DDIM. truncation scales the spread about the mean."""
        size = self.latents.mean.shape[0]
        noise = torch.cat([torch.randn(1, size, device=g.device, generator=g) for g in generators])
        denoise = self.process.denoiser(self.network)
        times = sampling_times(self.process.steps, self.sample_steps)
        z = ddim(denoise, noise, times, alpha_bar=self.process.alpha_bar, noise=lambda: noise)
        return self.latents.restore(truncation * z)

    @torch.no_grad()
    def vary(self, z: Tensor, generators: list[torch.Generator], variety: float) -> Tensor:
        """Latents like z (1, z_dim), one for each generator: diffused to a part `variety` of the way, and back.

        0 gives z itself, 1 latents that have nothing to do with it.
        """
        t = round(variety * self.process.steps)
        z = z.expand(len(generators), -1)
        if t == 0:
            return z
        noise = torch.cat([torch.randn(1, z.shape[1], device=g.device, generator=g) for g in generators])
        times = torch.full((len(z),), t, device=z.device)
        state = self.process.state(self.latents.normalize(z), noise, times)
        steps = sampling_times(t, min(t, self.sample_steps))
        denoise = self.process.denoiser(self.network)
        z = ddim(denoise, state, steps, alpha_bar=self.process.alpha_bar, noise=lambda: noise)
        return self.latents.restore(z)

    def describe(self) -> str:
        return f"the latent diffusion model (step {self.step})"

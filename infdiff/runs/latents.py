"""The trained latent diffusion model of a run: codes from noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from infdiff.config import Config, load_config
from infdiff.data.codes import Codes, load_codes
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.samplers import ddim
from infdiff.errors import UserError
from infdiff.models.latent_mlp import LatentMLP
from infdiff.training import checkpoint


def latent_folder(run_folder: Path, step: int) -> Path:
    """Where the codes and the latent model of one checkpoint of a run are kept."""
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
class LatentModel:
    """The averaged weights with the lowest validation loss, ready to draw codes."""

    network: nn.Module
    process: GaussianDiffusion
    codes: Codes
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
        codes = load_codes(folder, encoder)
        if codes is None:
            return None
        config = load_config(folder / "config.yaml")
        network, process = build_latent(config)
        network.load_state_dict(checkpoint.load_tensors(checkpoints, best, "ema_latent"))
        network.to(device).eval().requires_grad_(False)
        return cls(network, process, codes, encoder, config.latent.sample_steps, best, device)

    @torch.no_grad()
    def sample(self, generators: list[torch.Generator], truncation: float = 1.0) -> Tensor:
        """(B, z_dim): row i from generators[i] alone, by DDIM. truncation scales the spread about the mean."""
        size = self.codes.mean.shape[0]
        noise = torch.cat([torch.randn(1, size, device=g.device, generator=g) for g in generators])
        denoise = self.process.denoiser(self.network)
        z = ddim(denoise, noise, self.sample_steps, alpha_bar=self.process.alpha_bar, noise=lambda: noise)
        return self.codes.restore(truncation * z)

    @torch.no_grad()
    def vary(self, z: Tensor, generators: list[torch.Generator], variety: float) -> Tensor:
        """Codes like z (1, z_dim), one for each generator: diffused to a part `variety` of the way, and back.

        0 gives z itself, 1 codes that have nothing to do with it.
        """
        t = round(variety * self.process.steps)
        z = z.expand(len(generators), -1)
        if t == 0:
            return z
        noise = torch.cat([torch.randn(1, z.shape[1], device=g.device, generator=g) for g in generators])
        times = torch.full((len(z),), t, device=z.device)
        state = self.process.state(self.codes.normalize(z), noise, times)
        steps = min(t, self.sample_steps)
        bar = self.process.alpha_bar[: t + 1]
        denoise = self.process.denoiser(self.network)
        return self.codes.restore(ddim(denoise, state, steps, alpha_bar=bar, noise=lambda: noise))

    def describe(self) -> str:
        return f"the latent diffusion model (step {self.step})"

"""Sources of latents for new images: the latent diffusion model of a run, or a Gaussian until one is trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from infdiff.config.files import save_config
from infdiff.config.settings import Config, InfinityDiffConfig, LatentSettings
from infdiff.data.batches import first_batches
from infdiff.data.examples import Examples
from infdiff.data.latents import Encode, Latents, encode_images, load_latents
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.samplers import ddim
from infdiff.diffusion.schedules import sampling_times
from infdiff.errors import OptionError, UserError
from infdiff.models.latent_mlp import LatentMLP
from infdiff.runs.data import build_data, uncached
from infdiff.runs.folder import RunFolder
from infdiff.tensors import DamagedFileError, read_tensors, save_tensors
from infdiff.training import checkpoint

_BATCH = 64
# Enough latents for mean and covariance; encoding more only takes longer.
_MOST_LATENTS = 4096


class LatentSource(Protocol):
    """Draws latents z (B, z_dim): row i from generators[i] alone."""

    def sample(self, generators: Sequence[torch.Generator], truncation: float = 1.0) -> Tensor:
        """Return new latents. truncation: scales their spread about the mean."""

    def vary(self, z: Tensor, generators: Sequence[torch.Generator], variety: float) -> Tensor:
        """Return one latent like z (1, z_dim) for each generator. variety: from 0 (z itself) to 1 (unrelated to z).

        Raises UserError when the source cannot do it.
        """

    def describe(self) -> str:
        """Return a phrase for logs and reports."""

    def save(self, folder: RunFolder, step: int) -> None:
        """Write what `latents_of` needs to find this source in another run directory."""


def latents_of(folder: RunFolder, step: int, config: Config, encode: Encode, device: torch.device) -> LatentSource:
    """Return the latent model trained for a checkpoint, or else a Gaussian.

    The Gaussian is fitted to latents of training images at first use, and stored in the run directory.
    """
    if (model := LatentModel.load(folder, step, device)) is not None:
        return model
    if folder.gaussian(step).exists():
        return LatentGaussian.load(folder, step)
    images = build_data(uncached(config), device).train
    gaussian = fit_gaussian(encode, images, _MOST_LATENTS, device, flip=config.data.flip)
    with suppress(UserError):  # a run that can only be read is fitted each time
        gaussian.save(folder, step)
    return gaussian


def fit_gaussian(
    encode: Encode, images: Examples, limit: int, device: torch.device, *, flip: bool = False
) -> LatentGaussian:
    """Fit a Gaussian to the latents of the first `limit` images; of their flipped copies, too, if `flip` is on."""
    latents = encode_images(encode, first_batches(images, _BATCH, limit, device))
    if flip:
        flipped = (batch.flip(-1) for batch in first_batches(images, _BATCH, limit, device))
        latents = torch.cat([latents, encode_images(encode, flipped)])
    return LatentGaussian.fit(latents)


def latent_settings(config: Config) -> LatentSettings:
    """Return the settings of the latent model. Raises UserError where the method has no latents."""
    if not isinstance(config, InfinityDiffConfig):
        raise UserError(f"method {config.method} has no latents to model")
    return config.latent


def build_latent(config: Config) -> tuple[LatentMLP, GaussianDiffusion]:
    """Return the latent network with fresh weights, a function of the seed, and its diffusion process."""
    torch.manual_seed(config.seed)
    latent = latent_settings(config)
    network = LatentMLP(config.latent_dim, width=latent.width, layers=latent.layers)
    return network, GaussianDiffusion(schedule=latent.schedule, steps=latent.diffusion_steps)


@dataclass(frozen=True)
class LatentGaussian:
    """z = mean + factor^T xi: mean (z_dim,), factor (K, z_dim). Fitted to `count` latents."""

    mean: Tensor
    factor: Tensor
    count: int

    @classmethod
    def fit(cls, latents: Tensor) -> LatentGaussian:
        """Return the Gaussian with the mean and covariance of latents (N, z_dim), whatever N."""
        mean = latents.mean(dim=0)
        centred = (latents - mean) / max(1, len(latents) - 1) ** 0.5
        # centred^T centred is the covariance; R of centred = QR has the same and never more rows than columns.
        factor = torch.linalg.qr(centred, mode="r").R if len(latents) > latents.shape[1] else centred
        return cls(mean, factor, len(latents))

    def sample(self, generators: Sequence[torch.Generator], truncation: float = 1.0) -> Tensor:
        noise = _noise(generators, self.factor.shape[0])
        return self.mean.to(noise) + truncation * noise @ self.factor.to(noise)

    def vary(self, z: Tensor, generators: Sequence[torch.Generator], variety: float) -> Tensor:
        problem = "needs a latent diffusion model, and this checkpoint has none: train it with infdiff train-latent"
        raise OptionError("variety", f"{variety:g}", problem)

    def describe(self) -> str:
        return f"a Gaussian fitted to the latents of {self.count} training images (no latent model is trained)"

    def save(self, folder: RunFolder, step: int) -> None:
        tensors = {"mean": self.mean, "factor": self.factor, "count": torch.tensor(self.count)}
        save_tensors(folder.gaussian(step), tensors)

    @classmethod
    def load(cls, folder: RunFolder, step: int) -> LatentGaussian:
        """Read the Gaussian that was fitted for a checkpoint."""
        path = folder.gaussian(step)
        try:
            tensors, _ = read_tensors(path, ("mean", "factor", "count"))
        except (OSError, DamagedFileError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it, and it is fitted again") from error
        return cls(tensors["mean"], tensors["factor"], int(tensors["count"]))


@dataclass(frozen=True)
class LatentModel:
    """The latent diffusion model: the EMA weights with the lowest validation loss."""

    network: nn.Module
    process: GaussianDiffusion
    latents: Latents
    config: Config
    step: int

    @classmethod
    def load(cls, folder: RunFolder, step: int, device: torch.device) -> LatentModel | None:
        """Read the model of a run's checkpoint; None if none is trained for it."""
        own = folder.latents(step)
        best = checkpoint.best_step(own.checkpoints)
        if best is None:
            return None
        latents = load_latents(own.path, folder.fingerprint(step, "encoder"))
        if latents is None:
            return None
        config = own.config()
        network, process = build_latent(config)
        network.load_state_dict(own.weights(best, "latent"))
        network.to(device).eval().requires_grad_(False)
        return cls(network, process, latents, config, best)

    @torch.no_grad()
    def sample(self, generators: Sequence[torch.Generator], truncation: float = 1.0) -> Tensor:
        noise = _noise(generators, self.latents.mean.shape[0])
        return self.latents.restore(truncation * self._denoised(noise, self.process.steps))

    @torch.no_grad()
    def vary(self, z: Tensor, generators: Sequence[torch.Generator], variety: float) -> Tensor:
        """Diffuse z to a part `variety` of the way, and back."""
        t = round(variety * self.process.steps)
        z = z.expand(len(generators), -1)
        if t == 0:
            return z
        noise = _noise(generators, z.shape[1])
        times = torch.full((len(z),), t, device=z.device)
        state = self.process.state(self.latents.normalize(z), noise, times)
        return self.latents.restore(self._denoised(state, t))

    def _denoised(self, state: Tensor, start: int) -> Tensor:
        """Normalised latents from their state at time `start`, by DDIM, which draws no noise."""
        denoise = self.process.denoiser(self.network)
        times = sampling_times(start, min(start, latent_settings(self.config).sample_steps))
        return ddim(denoise, state, times, alpha_bar=self.process.alpha_bar, noise=lambda: state)

    def describe(self) -> str:
        return f"the latent diffusion model (step {self.step})"

    def save(self, folder: RunFolder, step: int) -> None:
        own = folder.latents(step)
        weights = {"ema_latent": self.network.state_dict()}
        checkpoint.save_checkpoint(own.checkpoints, self.step, weights, {"validation_loss": 0.0})
        save_config(self.config, own.config_file)
        self.latents.statistics().save(own.path, encoder=folder.fingerprint(step, "encoder"))


def _noise(generators: Sequence[torch.Generator], size: int) -> Tensor:
    """(B, size): row i from generators[i] alone."""
    return torch.cat([torch.randn(1, size, device=g.device, generator=g) for g in generators])

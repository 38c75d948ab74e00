"""Sources of latents for new images: the latent diffusion model of a run, or a Gaussian until one is trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from infdiff.config.files import save_config
from infdiff.config.settings import Config, InfinityDiffConfig, LatentSettings
from infdiff.data.batches import first_batches
from infdiff.data.examples import Examples
from infdiff.data.latents import Encode, Latents, encode_images, load_latents
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition, guided_network
from infdiff.diffusion.latent_processes import LatentDDPM, LatentEDM, LatentProcess
from infdiff.diffusion.process import Network
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

    def sample(
        self, generators: Sequence[torch.Generator], truncation: float = 1.0, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Return new latents. truncation: scales their spread about the mean.

        condition: the labels of their images, and the weight of classifier-free guidance.
        """

    def vary(
        self, z: Tensor, generators: Sequence[torch.Generator], variety: float, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Return one latent like z (1, z_dim) for each generator. variety: from 0 (z itself) to 1 (unrelated to z).

        condition: as `sample`. Raises UserError when the source cannot do it.
        """

    def describe(self) -> str:
        """Return a phrase for logs and reports."""

    def record(self) -> dict[str, Any]:
        """Return what drawn latents depend on, for a run with the same weights."""

    def save(self, folder: RunFolder, step: int) -> None:
        """Write what `latents_of` needs to find this source in another run directory."""


def latents_of(folder: RunFolder, step: int, config: Config, encode: Encode, device: torch.device) -> LatentSource:
    """Return the latent model trained for a checkpoint, or else a Gaussian.

    The Gaussian is fitted to latents of training images at first use, and stored in the run directory.
    """
    if (model := LatentModel.load(folder, step, device)) is not None:
        return model
    if folder.gaussian(step).exists():
        return LatentGaussian.load(folder, step, labelled=bool(config.label_dim))
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
    labels = None if images.labels is None else images.labels[:limit].cpu()
    return LatentGaussian.fit(latents, labels if labels is None or not flip else labels.repeat(2, 1))


def latent_settings(config: Config) -> LatentSettings:
    """Return the settings of the latent model. Raises UserError where the method has no latents."""
    if not isinstance(config, InfinityDiffConfig):
        raise UserError(f"method {config.method} has no latents to model")
    return config.latent


def build_latent(config: Config) -> tuple[LatentMLP, LatentProcess]:
    """Return the latent network with fresh weights, a function of the seed, and its diffusion process."""
    torch.manual_seed(config.seed)
    latent = latent_settings(config)
    network = LatentMLP(config.latent_dim, width=latent.width, layers=latent.layers, label_dim=config.label_dim)
    ddpm = latent.process == "ddpm"
    return network, LatentDDPM(schedule=latent.schedule, steps=latent.diffusion_steps) if ddpm else LatentEDM()


class Regression(NamedTuple):
    """Linear regression of latents on labels: slope (label_dim, z_dim), the labels' mean, factor of what is left."""

    slope: Tensor
    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, centred: Tensor, labels: Tensor) -> Regression:
        """Fit latents (N, z_dim) of mean 0 by least squares. Of classes, it is the mean of each."""
        mean = labels.mean(dim=0)
        slope = (torch.linalg.pinv((labels - mean).double()) @ centred.double()).float()
        return cls(slope, mean, _factor(centred - (labels - mean) @ slope))


def _factor(centred: Tensor) -> Tensor:
    """F (K, z_dim), such that F^T F is the covariance of latents (N, z_dim) of mean 0."""
    scaled = centred / max(1, len(centred) - 1) ** 0.5
    # R of the QR decomposition has the same product, and never more rows than columns.
    return torch.linalg.qr(scaled, mode="r").R if len(centred) > centred.shape[1] else scaled


@dataclass(frozen=True)
class LatentGaussian:
    """z = mean + factor^T xi: mean (z_dim,), factor (K, z_dim). Fitted to `count` latents.

    regression: of latents with labels y, z = mean + regression.slope^T (y - regression.mean) + regression.factor^T xi.
    """

    mean: Tensor
    factor: Tensor
    count: int
    regression: Regression | None = None

    @classmethod
    def fit(cls, latents: Tensor, labels: Tensor | None = None) -> LatentGaussian:
        """Return the Gaussian with the mean and covariance of latents (N, z_dim), whatever N. labels (N, label_dim)."""
        mean = latents.mean(dim=0)
        regression = None if labels is None else Regression.fit(latents - mean, labels)
        return cls(mean, _factor(latents - mean), len(latents), regression)

    def sample(
        self, generators: Sequence[torch.Generator], truncation: float = 1.0, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        labels = condition.labels
        if labels is not None and condition.guidance and self.regression is not None:
            noise = _noise(generators, self.regression.factor.shape[0])
            slope, mean, factor = (part.to(noise) for part in self.regression)
            return self.mean.to(noise) + (labels - mean) @ slope + truncation * noise @ factor
        noise = _noise(generators, self.factor.shape[0])
        return self.mean.to(noise) + truncation * noise @ self.factor.to(noise)

    def vary(
        self, z: Tensor, generators: Sequence[torch.Generator], variety: float, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        problem = "needs a latent diffusion model, and this checkpoint has none: train it with infdiff train-latent"
        raise OptionError("variety", f"{variety:g}", problem)

    def describe(self) -> str:
        return f"a Gaussian fitted to the latents of {self.count} training images (no latent model is trained)"

    def record(self) -> dict[str, Any]:
        return {"latents": self.describe()}

    def save(self, folder: RunFolder, step: int) -> None:
        tensors = {"mean": self.mean, "factor": self.factor, "count": torch.tensor(self.count)}
        if self.regression is not None:
            tensors |= {f"label_{name}": part for name, part in self.regression._asdict().items()}
        save_tensors(folder.gaussian(step), tensors)

    @classmethod
    def load(cls, folder: RunFolder, step: int, *, labelled: bool = False) -> LatentGaussian:
        """Read the Gaussian that was fitted for a checkpoint. labelled: of a run with labels."""
        path = folder.gaussian(step)
        named = tuple(f"label_{name}" for name in Regression._fields) if labelled else ()
        try:
            tensors, _ = read_tensors(path, ("mean", "factor", "count", *named))
        except (OSError, DamagedFileError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it, and it is fitted again") from error
        regression = Regression(*(tensors[name] for name in named)) if named else None
        return cls(tensors["mean"], tensors["factor"], int(tensors["count"]), regression)


@dataclass(frozen=True)
class LatentModel:
    """The latent diffusion model: the EMA weights with the lowest validation loss. fingerprint: a hash of them."""

    network: nn.Module
    process: LatentProcess
    latents: Latents
    config: Config
    step: int
    fingerprint: str = ""

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
        return cls(network, process, latents, config, best, own.fingerprint(best))

    @torch.no_grad()
    def sample(
        self, generators: Sequence[torch.Generator], truncation: float = 1.0, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        noise = _noise(generators, self.latents.mean.shape[0])
        network = self._network(condition)
        return self.latents.restore(truncation * self.process.from_noise(network, noise, self._steps))

    @torch.no_grad()
    def vary(
        self, z: Tensor, generators: Sequence[torch.Generator], variety: float, condition: Condition = UNCONDITIONAL
    ) -> Tensor:
        """Diffuse z to a part `variety` of the way, and back, towards images of the labels."""
        z = z.expand(len(generators), -1)
        if variety == 0:
            return z
        noise, known = _noise(generators, z.shape[1]), self.latents.normalize(z)
        network = self._network(condition)
        return self.latents.restore(self.process.from_part(network, known, noise, self._steps, variety))

    @property
    def _steps(self) -> int:
        return latent_settings(self.config).sample_steps

    def _network(self, condition: Condition) -> Network:
        """The network under the labels of a condition, as a function of states and times."""

        def network(x: Tensor, t: Tensor, labels: Tensor | None, known: Tensor | None) -> Tensor:
            prediction: Tensor = self.network(x, t) if labels is None else self.network(x, t, labels)
            return prediction

        return guided_network(network, replace(condition, known=None))  # latents are of images, not of their channels

    def describe(self) -> str:
        return f"the latent diffusion model (step {self.step})"

    def record(self) -> dict[str, Any]:
        return {"latents": self.describe(), "latent_weights": self.fingerprint, "latent_steps": self._steps}

    def save(self, folder: RunFolder, step: int) -> None:
        own = folder.latents(step)
        weights = {"ema_latent": self.network.state_dict()}
        checkpoint.save_checkpoint(own.checkpoints, self.step, weights, {"validation_loss": 0.0})
        save_config(self.config, own.config_file)
        self.latents.statistics().save(own.path, encoder=folder.fingerprint(step, "encoder"))


def _noise(generators: Sequence[torch.Generator], size: int) -> Tensor:
    """(B, size): row i from generators[i] alone."""
    return torch.cat([torch.randn(1, size, device=g.device, generator=g) for g in generators])

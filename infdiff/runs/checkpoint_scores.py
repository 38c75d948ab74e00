"""Metrics of a few samples while a run is being trained: compared with training images, at the training size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn

from infdiff import processes
from infdiff.config.settings import Config
from infdiff.data.batches import first_batches
from infdiff.diffusion.process import PointNetwork
from infdiff.errors import UserError
from infdiff.images.pixels import to_uint8
from infdiff.methods.sizes import point_count
from infdiff.metrics.distances import squared_mmd
from infdiff.metrics.features import DEFAULT, FeatureNetwork, load_network
from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance
from infdiff.pipelines.generate import encode
from infdiff.runs.data import Data
from infdiff.runs.latents import fit_gaussian
from infdiff.runs.previews import Sampling
from infdiff.seeding import generator_for
from infdiff.training.pauses import OnProgress

_BATCH = 64
# Training images for the Gaussian that draws the latents of samples.
_LATENTS = 256


class SmallEvaluation:
    """Called with the EMA modules, returns "spectrum" and, if the `eval` extra is installed, "kid".

    They are those of `infdiff evaluate` for `train.eval_images` samples, with the same noise every time. "broken"
    counts samples with non-finite pixels: the metrics leave them out, and need at least two other samples. Processes
    that work together share the samples, and the first one measures them; the others return nothing.
    """

    def __init__(self, config: Config, data: Data, device: torch.device, sampling: Sampling) -> None:
        self.config, self.data, self.device, self.sampling = config, data, device, sampling
        self.count = config.train.eval_images

    @torch.no_grad()
    def __call__(self, modules: Mapping[str, nn.Module], on_progress: OnProgress) -> dict[str, float]:
        whole, broken = [], 0
        z = None if (encoder := modules.get("encoder")) is None else self._latents(encoder)
        for images in self.sampling(modules["denoiser"], z, range(self.count), on_progress):
            finite = images.isfinite().flatten(1).all(dim=1)
            whole.append(to_uint8(images[finite]).cpu())
            broken += int((~finite).sum())
        if not processes.joined().first:
            return {}
        scores: dict[str, float] = {"broken": broken}
        if self.count - broken < 2:
            return scores
        samples = torch.cat(whole)
        spectrum, features = self._describe(samples.split(_BATCH))
        real_spectrum, real_features = self._real
        scores["spectrum"] = spectrum_distance(spectrum, real_spectrum)
        if features is not None and real_features is not None:
            scores["kid"] = squared_mmd(features, real_features)
        return scores

    @cached_property
    def _network(self) -> FeatureNetwork | None:
        with suppress(UserError):
            return load_network(DEFAULT, self.device)
        return None

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor | None]:
        return self._describe(first_batches(self.data.train, _BATCH, max(2, self.count), torch.device("cpu")))

    def _describe(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the mean spectrum (K,) of batches (B, 3, H, W) uint8, and features (N, D) if there is a network."""
        spectra, features = [], []
        for batch in batches:
            spectra.append(radial_spectrum(batch))
            if self._network is not None:
                features.append(self._network(batch).cpu())
        return torch.cat(spectra).mean(dim=0), torch.cat(features) if features else None

    def _latents(self, encoder: nn.Module) -> Tensor:
        """Latents (N, z_dim) of the samples."""
        encoded = partial(encode, cast(PointNetwork, encoder), points=point_count(self.config), seed=self.config.seed)
        gaussian = fit_gaussian(encoded, self.data.train, _LATENTS, self.device)
        generators = [generator_for(self.device, self.config.seed, "latent", i) for i in range(self.count)]
        return gaussian.sample(generators, self.config.truncation)

"""How good samples are while a run is being trained: a few of them beside training images, at the training size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property

import torch
from torch import Tensor, nn

from infdiff.config import Config
from infdiff.data.batches import first_batches
from infdiff.data.latents import encode_images
from infdiff.errors import UserError
from infdiff.images.pixels import to_uint8
from infdiff.methods.checks import default_batch
from infdiff.methods.sizes import point_count, training_size
from infdiff.metrics.distances import squared_mmd
from infdiff.metrics.features import DEFAULT, FeatureNetwork, load_network
from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance
from infdiff.pipelines.generate import encode
from infdiff.runs.data import Data
from infdiff.runs.latents import LatentGaussian
from infdiff.runs.previews import Draw
from infdiff.seeding import generator_for

_BATCH = 64
# Training images whose latents a Gaussian is fitted to, from which samples draw theirs.
_LATENTS = 256


class SmallEvaluation:
    """Called with the averaged modules, gives "spectrum" and, where the `eval` extra is installed, "kid".

    As in `scripts/evaluate.py`, of `train.eval_images` samples, the same noise every time. "broken" counts samples with
    pixels that are not finite: they are in no number, and where fewer than two are whole there is none.
    """

    def __init__(self, config: Config, data: Data, device: torch.device, draw: Draw) -> None:
        self.config, self.data, self.device, self.draw = config, data, device, draw
        self.count = config.train.eval_images
        self.size = training_size(config)

    @torch.no_grad()
    def __call__(self, modules: Mapping[str, nn.Module]) -> dict[str, float]:
        whole, broken = [], 0
        latents = None if (encoder := modules.get("encoder")) is None else self._latents(encoder)
        for numbers in torch.arange(self.count).split(default_batch(self.config, self.size)):
            images = self._sample(modules["denoiser"], latents, numbers.tolist())
            finite = images.isfinite().flatten(1).all(dim=1)
            whole.append(to_uint8(images[finite]).cpu())
            broken += int((~finite).sum())
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
        """The mean spectrum (K,) and, where there is a network, features (N, D) of batches (B, 3, H, W) uint8."""
        spectra, features = [], []
        for batch in batches:
            spectra.append(radial_spectrum(batch))
            if self._network is not None:
                features.append(self._network(batch).cpu())
        return torch.cat(spectra).mean(dim=0), torch.cat(features) if features else None

    def _sample(self, denoiser: nn.Module, latents: LatentGaussian | None, numbers: list[int]) -> Tensor:
        if latents is None:
            return self.draw(denoiser, None, numbers)
        generators = [generator_for(self.device, self.config.seed, "latent", i) for i in numbers]
        return self.draw(denoiser, latents.sample(generators, self.config.sample.truncation), numbers)

    def _latents(self, encoder: nn.Module) -> LatentGaussian:
        def latents_of(images: Tensor) -> Tensor:
            return encode(encoder, images, points=point_count(self.config), seed=self.config.seed)

        images = first_batches(self.data.train, _BATCH, _LATENTS, self.device)
        return LatentGaussian.fit(encode_images(latents_of, images))

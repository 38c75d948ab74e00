"""Images made during training: samples, and reconstructions next to their originals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from infdiff.data.batches import Examples, first_batches
from infdiff.diffusion.process import PointNetwork
from infdiff.images.pixels import to_uint8
from infdiff.images.write import contact_sheet, save_png
from infdiff.pipelines.generate import encode
from infdiff.runs.latents import fit_gaussian
from infdiff.seeding import generator_for

_COLUMNS = 8
_LATENTS = 256


# (denoiser, latents or None, indices) -> images (B, C, H, W) in [-1, 1].
Draw = Callable[[nn.Module, Tensor | None, Sequence[int]], Tensor]


class Previews:
    """Called with a step and the EMA modules, writes PNGs of eight columns into a folder.

    samples-STEP.png; with an autoencoder also reconstructions-STEP.png: training images, their reconstructions,
    validation images, their reconstructions.
    """

    def __init__(
        self,
        draw: Draw,
        *,
        train: Examples,
        validation: Examples,
        points: int,
        folder: Path,
        device: torch.device,
        seed: int,
        truncation: float,
    ) -> None:
        self.draw, self.train, self.validation = draw, train, validation
        self.points, self.folder, self.device = points, folder, device
        self.seed, self.truncation = seed, truncation

    def __call__(self, step: int, modules: Mapping[str, nn.Module]) -> None:
        denoiser, encoder = modules["denoiser"], modules.get("encoder")
        z = None
        if encoder is not None:
            encoded = partial(encode, cast(PointNetwork, encoder), points=self.points, seed=self.seed)
            generators = [generator_for(self.device, self.seed, "latent", i) for i in range(_COLUMNS)]
            z = fit_gaussian(encoded, self.train, _LATENTS, self.device).sample(generators, self.truncation)
            rows = []
            for images in (self.train, self.validation):
                originals = next(first_batches(images, _COLUMNS, _COLUMNS, self.device))
                rows += [originals.cpu(), self._generate(denoiser, encoded(originals), len(originals))]
            sheet = contact_sheet(torch.cat([_full_row(row) for row in rows]), _COLUMNS)
            save_png(sheet, self.folder / f"reconstructions-{step:08d}.png")
        samples = self._generate(denoiser, z, _COLUMNS)
        save_png(contact_sheet(samples, _COLUMNS), self.folder / f"samples-{step:08d}.png")

    def _generate(self, denoiser: nn.Module, z: Tensor | None, count: int) -> Tensor:
        return to_uint8(self.draw(denoiser, z, range(count))).cpu()


def _full_row(images: Tensor) -> Tensor:
    """Fill a row with white images."""
    blank = images.new_full((_COLUMNS - len(images), *images.shape[1:]), 255)
    return torch.cat([images, blank])

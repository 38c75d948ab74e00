"""Images made during training: samples, and reconstructions next to their originals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from infdiff.data.batches import first_batches
from infdiff.data.examples import Examples
from infdiff.diffusion.process import PointNetwork
from infdiff.images.write import contact_sheet, save_png
from infdiff.pipelines.generate import encode
from infdiff.runs.fields import ToPictures, pictures_of
from infdiff.runs.latents import fit_gaussian
from infdiff.seeding import generator_for
from infdiff.training.pauses import OnProgress

_COLUMNS = 8
# Training images for the Gaussian that draws the latents of samples.
_LATENTS = 64


class Draw(Protocol):
    """Draws images (B, C, H, W) in [-1, 1] with latents z (B, z_dim); on_step as in `Method.generate`."""

    def __call__(
        self, denoiser: nn.Module, z: Tensor | None, indices: Sequence[int], on_step: Callable[[], object]
    ) -> Tensor: ...


@dataclass(frozen=True)
class Sampling:
    """A way to draw images at the training size.

    evaluations: of the network, for one batch. batch: images at once.
    """

    draw: Draw
    evaluations: int
    batch: int

    def __call__(
        self, denoiser: nn.Module, z: Tensor | None, indices: Sequence[int], on_progress: OnProgress
    ) -> Iterator[Tensor]:
        """Yield the images in batches; on_progress counts evaluations of the network."""
        parts = torch.arange(len(indices)).split(self.batch)
        total, done = len(parts) * self.evaluations, itertools.count(1)
        on_progress(0, total)
        for places in parts:
            own = [indices[place] for place in places.tolist()]
            yield self.draw(denoiser, None if z is None else z[places], own, lambda: on_progress(next(done), total))


class Previews:
    """Called with a step and the EMA modules, writes PNGs of up to eight columns into a folder.

    samples-STEP.png; with an autoencoder also reconstructions-STEP.png: training images, their reconstructions,
    validation images, their reconstructions. encodes: whether there is an autoencoder. images_a_step: images at the
    training size that cost as much as those of one training step. pictures: makes RGB of images that are fields.
    """

    most = _COLUMNS

    def __init__(
        self,
        sampling: Sampling,
        *,
        train: Examples,
        validation: Examples,
        points: int,
        folder: Path,
        device: torch.device,
        seed: int,
        truncation: float,
        encodes: bool,
        images_a_step: float,
        pictures: ToPictures | None = None,
    ) -> None:
        self.shown = pictures or pictures_of(None)
        self.sampling, self.train, self.validation = sampling, train, validation
        self.points, self.folder, self.device = points, folder, device
        self.seed, self.truncation = seed, truncation
        self.encodes, self.images_a_step = encodes, images_a_step

    def pictures(self, step: int) -> list[Path]:
        """Return the files of a step, none unless all of them are there: samples are written last."""
        samples, others = _samples(self.folder, step), _reconstructions(self.folder, step)
        return [path for path in (samples, others) if path.exists()] if samples.exists() else []

    def worth(self, count: int) -> float:
        """Estimate the number of training steps that last as long as a preview of `count` columns."""
        # An image without gradients takes a third of the time, and the first ones longer: the estimate is rather high.
        # The encoder is about half of the network.
        evaluated = count * self.sampling.evaluations
        images = 3 * evaluated + _LATENTS / 2 if self.encodes else evaluated
        return images / (2 * self.images_a_step)

    def __call__(self, step: int, modules: Mapping[str, nn.Module], count: int, on_progress: OnProgress) -> None:
        denoiser, encoder = modules["denoiser"], modules.get("encoder")
        z, indices, originals = None, [*range(count)], []
        if encoder is not None:
            encoded = partial(encode, cast(PointNetwork, encoder), points=self.points, seed=self.seed)
            generators = [generator_for(self.device, self.seed, "latent", i) for i in indices]
            originals = [next(first_batches(d, count, count, self.device)) for d in (self.train, self.validation)]
            gaussian = fit_gaussian(encoded, self.train, _LATENTS, self.device)
            z = torch.cat([gaussian.sample(generators, self.truncation), *(encoded(images) for images in originals)])
            # Row by row the same noise.
            indices += [i for images in originals for i in range(len(images))]
        # In one go: batches are faster than images one by one.
        drawn = torch.cat([self.shown(part).cpu() for part in self.sampling(denoiser, z, indices, on_progress)])
        samples, *reconstructions = drawn.split([count, *(len(images) for images in originals)])
        if originals:
            pairs = zip(originals, reconstructions, strict=True)
            shown = ((self.shown(images), made) for images, made in pairs)
            rows = [_full_row(row.cpu(), count) for pair in shown for row in pair]
            save_png(contact_sheet(torch.cat(rows), count), _reconstructions(self.folder, step))
        save_png(contact_sheet(samples, count), _samples(self.folder, step))


def _samples(folder: Path, step: int) -> Path:
    return folder / f"samples-{step:08d}.png"


def _reconstructions(folder: Path, step: int) -> Path:
    return folder / f"reconstructions-{step:08d}.png"


def _full_row(images: Tensor, count: int) -> Tensor:
    """Fill a row with white images."""
    blank = images.new_full((count - len(images), *images.shape[1:]), 255)
    return torch.cat([images, blank])

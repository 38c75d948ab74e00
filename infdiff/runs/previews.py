"""Images made during training: samples, and reconstructions next to their originals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from infdiff import processes
from infdiff.data.batches import first_batches
from infdiff.data.examples import Examples
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition, with_known
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
    """Draws images (B, C, H, W) in [-1, 1] with latents z (B, z_dim); condition, on_step as in `Method.generate`."""

    def __call__(
        self,
        denoiser: nn.Module,
        z: Tensor | None,
        indices: Sequence[int],
        on_step: Callable[[], object],
        condition: Condition = UNCONDITIONAL,
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
        self,
        denoiser: nn.Module,
        z: Tensor | None,
        indices: Sequence[int],
        on_progress: OnProgress,
        condition: Condition = UNCONDITIONAL,
    ) -> Iterator[Tensor]:
        """Yield the images in batches; on_progress counts this process's evaluations of the network.

        Processes that work together share the batches, and each yields all of them.
        """
        place = processes.joined()
        batch = min(self.batch, -(-len(indices) // place.count)) if place.count > 1 else self.batch
        parts = torch.arange(len(indices)).split(batch)
        total, done = -(-len(parts) // place.count) * self.evaluations, itertools.count(1)
        on_progress(0, total)

        def drawn(places: Tensor) -> Tensor:
            own = [indices[place] for place in places.tolist()]
            latents = None if z is None else z[places]
            given = (condition.rows(places),) if condition.given else ()
            with processes.apart():
                return self.draw(denoiser, latents, own, lambda: on_progress(next(done), total), *given)

        for start in range(0, len(parts), place.count):
            together = parts[start : start + place.count]
            images = drawn(together[place.rank]) if place.rank < len(together) else None
            if place.count == 1:
                assert images is not None
                yield images
                continue
            device = next(denoiser.parameters()).device
            for owner in range(len(together)):
                yield processes.sent(images if owner == place.rank else None, owner, device)


class Previews:
    """Called with a step and the EMA modules, writes PNGs of up to eight columns into a folder.

    samples-STEP.png; with an autoencoder also reconstructions-STEP.png: training images, their reconstructions,
    validation images, their reconstructions. encodes: whether there is an autoencoder. images_a_step: images at the
    training size that cost as much as those of one training step. pictures: makes RGB of images that are fields.
    channels: those that are generated, where images have others, too. Conditions are those of images in the data.
    Processes that work together share the images, and the first one writes them.
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
        channels: int | None = None,
    ) -> None:
        self.shown, self.channels = pictures or pictures_of(None), channels
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
        conditions = [condition := self._condition(self.validation, count)]
        if encoder is not None:
            network = cast(PointNetwork, encoder)

            def encoded(images: Tensor) -> Tensor:
                return encode(network, images[:, : self.channels], points=self.points, seed=self.seed)

            generators = [generator_for(self.device, self.seed, "latent", i) for i in indices]
            originals = [next(first_batches(d, count, count, self.device)) for d in (self.train, self.validation)]
            gaussian = fit_gaussian(encoded, self.train, _LATENTS, self.device)
            z = torch.cat(
                [gaussian.sample(generators, self.truncation, condition), *(encoded(images) for images in originals)]
            )
            # Row by row the same noise.
            indices += [i for images in originals for i in range(len(images))]
            sets = zip((self.train, self.validation), originals, strict=True)
            conditions += [self._condition(data, len(images)) for data, images in sets]
        # In one go: batches are faster than images one by one.
        parts = self.sampling(denoiser, z, indices, on_progress, _joined(conditions))
        drawn = torch.cat([self.shown(part).cpu() for part in parts])
        if not processes.joined().first:
            return
        samples, *reconstructions = drawn.split([count, *(len(images) for images in originals)])
        if originals:
            pairs = zip(originals, reconstructions, strict=True)
            shown = ((self.shown(images[:, : self.channels]), made) for images, made in pairs)
            rows = [_full_row(row.cpu(), count) for pair in shown for row in pair]
            save_png(contact_sheet(torch.cat(rows), count), _reconstructions(self.folder, step))
        save_png(contact_sheet(samples, count), _samples(self.folder, step))

    def _condition(self, images: Examples, count: int) -> Condition:
        """Return that of the first images, in their order; again from the first where they are fewer than `count`."""
        first = torch.arange(count) % len(images)
        labels = None if images.labels is None else images.labels[first.to(images.labels.device)].to(self.device)
        taken = images.take(first)
        known = None if self.channels in (None, taken.shape[1]) else taken[:, self.channels :].to(self.device)
        return Condition(labels, None if known is None else with_known(known))


def _joined(conditions: Sequence[Condition]) -> Condition:
    labels = [condition.labels for condition in conditions if condition.labels is not None]
    known = [condition.known for condition in conditions if condition.known is not None]
    return Condition(torch.cat(labels) if labels else None, torch.cat(known) if known else None)


def _samples(folder: Path, step: int) -> Path:
    return folder / f"samples-{step:08d}.png"


def _reconstructions(folder: Path, step: int) -> Path:
    return folder / f"reconstructions-{step:08d}.png"


def _full_row(images: Tensor, count: int) -> Tensor:
    """Fill a row with white images."""
    blank = images.new_full((count - len(images), *images.shape[1:]), 255)
    return torch.cat([images, blank])

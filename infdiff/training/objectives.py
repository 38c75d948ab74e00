"""Training objectives: the network's prediction, its error, and each image's weight.

An objective is called with the modules to use (so that EMA weights are measured by the same code), a batch, and a
generator on its device, which alone decides every draw. Where several processes train together, each has a part of the
batch, and draws for all of it: image i of the batch gets the same numbers on any number of processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.coordinates import Size
from infdiff.diffusion.conditions import draw_dropped, dropped, with_known
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.latent_processes import LatentProcess
from infdiff.diffusion.missing import known_average, masked, valid_mean
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.point_noise import draw_keys, noise_at
from infdiff.diffusion.process import PointNetwork
from infdiff.diffusion.times import DrawTimes, uniform_times
from infdiff.diffusion.weighting import Weighting, uniform
from infdiff.images.pixels import to_values, valid_pixels
from infdiff.labelled import Labelled, without_labels
from infdiff.points import PointBatch, draw_subsets, draw_valid_points, gather, place_points
from infdiff.processes import global_size, own_rows
from infdiff.training.augment import augment


class Seen(NamedTuple):
    """Images at the points where they are denoised, (B, L, C) each, and where an encoder sees them."""

    size: Size
    t: Tensor  # (B,)
    ids: Tensor  # (B, L)
    image: Tensor
    white_noise: Tensor
    mollified_image: Tensor
    mollified_noise: Tensor
    encoder_ids: Tensor  # (B, M), of no points without an encoder
    encoder_image: Tensor  # (B, M, C)


@dataclass(frozen=True)
class Given:
    """Conditions of a batch as a network is shown them; None: none.

    labels (B, label_dim); known: channels that are known, of images, (B, K + 1, H, W).
    """

    labels: Tensor | None = None
    known: Tensor | None = None

    @classmethod
    def drawn(
        cls, labels: Tensor | None, known: Tensor | None, drop: float, batch: int, generator: torch.Generator
    ) -> Given:
        """Leave out the conditions of each of `batch` images with probability `drop`. known: (B, K, H, W), NaN: not."""
        kinds = [rows for rows in (labels, None if known is None else with_known(known)) if rows is not None]
        if not kinds:
            return cls()
        out = own_rows(draw_dropped(global_size(batch), drop, len(kinds), generator))
        kept = [dropped(rows, out[:, place]) for place, rows in enumerate(kinds)]
        return cls(None if labels is None else kept[0], None if known is None else kept[-1])


class MollifiedObjective:
    """∞-Diff: denoise mollified images (B, C, H, W) at a random subset of their pixels: uint8, or float32 fields.

    Or a `PointBatch`, whose points were drawn with it: then nothing has as many values as the images have pixels. The
    mean squared error of the prediction there (Eq. 42 for the paper's target). points(size, seed): how many for images
    of a size, in the step whose generator has that seed; kind: how they are drawn, as `draw_points`. times:
    draws t. sharp_weight: of the second output's error, for a network that has one. holes: pixels may be missing (NaN),
    and all that is read are the others; T x_0 is then T(x_0 m) / T(m), with m = 1 at valid pixels. channels: those of
    images that are generated, the first ones; the others are known, and the denoiser sees them at its points. None:
    all. drop: the probability of leaving out an image's label and known channels. Labels come with a `Labelled` batch.
    """

    def __init__(
        self,
        process: MollifiedDiffusion,
        *,
        points: Callable[[Size, int], int],
        kind: str,
        flip: bool,
        latent_noise: float = 0.0,
        weighting: Weighting = uniform,
        times: DrawTimes | None = None,
        sharp_weight: float = 0.0,
        holes: bool = False,
        channels: int | None = None,
        drop: float = 0.0,
    ) -> None:
        self.holes, self.channels, self.drop = holes, channels, drop
        self.process, self.points, self.kind, self.flip = process, points, kind, flip
        self.latent_noise, self.weighting, self.sharp_weight = latent_noise, weighting, sharp_weight
        self.times = times if times is not None else uniform_times(process.steps)
        self._count: int | None = None
        self._place, self._asked = place_points, self.asked

    def fixed(self, batch: Tensor | PointBatch | Labelled, seed: int) -> tuple[Hashable, MollifiedObjective]:
        """Return the number of points in the step with that seed, and the objective with as many in every step.

        A generator whose draws are being recorded does not tell its seed.
        """
        other = copy.copy(self)
        other._count = self.points((batch.shape[2], batch.shape[3]), seed)
        return other._count, other

    def compiled(self) -> MollifiedObjective:
        """Return the objective with its arithmetic compiled, but for the products with T: draws, states and targets."""
        other = copy.copy(self)
        other._place = torch.compile(place_points, dynamic=False)
        other._asked = torch.compile(self.asked, dynamic=False)
        return other

    def __call__(
        self, modules: Mapping[str, nn.Module], batch: Tensor | PointBatch | Labelled, generator: torch.Generator
    ) -> Tensor:
        images, labels = without_labels(batch)
        if isinstance(images, PointBatch):
            seen = self._at_points(images, generator)
            given = Given.drawn(labels, None, self.drop, images.shape[0], generator)
            return self._loss(modules, seen, given, generator)
        x0, valid = values_of(images, self.flip, self.holes, generator)
        return self.loss(modules, x0, valid, generator, labels)

    def loss(
        self,
        modules: Mapping[str, nn.Module],
        x0: Tensor,
        valid: Tensor | None,
        generator: torch.Generator,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of images (B, C, H, W), of which the valid pixels (B, H, W) are read; None: all."""
        x0, known = split_channels(x0, self.channels)
        seen = self._of_images(x0, valid, generator, "encoder" in modules)
        given = Given.drawn(labels, known, self.drop, len(x0), generator)
        return self._loss(modules, seen, given, generator)

    def _loss(self, modules: Mapping[str, nn.Module], seen: Seen, given: Given, generator: torch.Generator) -> Tensor:
        process, channels, t = self.process, seen.image.shape[2], seen.t
        # All ones need not be multiplied by.
        weight = None if self.weighting is uniform else self.weighting(process.snr(t))
        x, target, sharp = self._asked(t, seen.image, seen.white_noise, seen.mollified_image, seen.mollified_noise)
        z = self._encode(modules, seen, generator)
        denoiser = cast(PointNetwork, modules["denoiser"])
        if given.known is not None:
            x = torch.cat([x, gather(given.known, seen.ids)], dim=2)
        condition = (t, z) if given.labels is None else (t, z, given.labels)
        prediction = denoiser(x, denoiser.geometry(seen.ids, seen.size), *condition).float()
        loss = _mean_square(prediction[..., :channels], target, weight)
        if sharp is not None:
            error = (prediction[..., channels:] - sharp).square()
            loss = loss + self.sharp_weight * _weighted_mean(error, process.sharp_weight(t))
        return loss

    def asked(
        self, t: Tensor, image: Tensor, white: Tensor, clean: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The network's input at points, its target, and that of its second output, where it counts: each (B, L, C).

        From what is at the points, (B, L, C): x0, xi, T x0 and T xi.
        """
        process = self.process
        target = process.training_target(image, white, clean, noise, t)
        state = process.state(clean, noise, t)
        return (
            process.network_input(state, t),
            target,
            process.sharp_target(image, clean) if self.sharp_weight else None,
        )

    def _of_images(self, x0: Tensor, valid: Tensor | None, generator: torch.Generator, encoder: bool) -> Seen:
        """Draw points of images; noise and T x_0 are made of all pixels and read there."""
        batch, channels, *size = x0.shape
        shape = size[0], size[1]
        if valid is not None:
            x0 = masked(x0, valid)
        t = own_rows(self.times(global_size(batch), generator))
        white, noise = self.process.mollifier.noise_pair(global_size(batch), channels, shape, [generator], own_rows)
        ids, *encoder_ids = self._draw(2 if encoder else 1, batch, shape, valid, generator)
        smooth = self.process.clean(x0) if valid is None else known_average(self.process.clean, x0, valid)
        image, white, clean, noise = (gather(image, ids) for image in (x0, white, smooth, noise))
        seen = encoder_ids[0] if encoder else ids[:, :0]
        return Seen(shape, t, ids, image, white, clean, noise, seen, gather(x0, seen))

    def _at_points(self, batch: PointBatch, generator: torch.Generator) -> Seen:
        """Draw the noise at a batch's points alone."""
        count, channels = batch.shape[:2]
        t = own_rows(self.times(global_size(count), generator))
        keys = own_rows(draw_keys(global_size(count), generator))
        noise = noise_at(self.process.mollifier, batch.ids, batch.size, keys, channels)
        image, encoder_image = to_values(batch.values), to_values(batch.encoder_values)
        # White noise is wanted by no target that takes this way; without a mollifier it is the noise.
        return Seen(batch.size, t, batch.ids, image, noise, batch.mollified, noise, batch.encoder_ids, encoder_image)

    def _encode(self, modules: Mapping[str, nn.Module], seen: Seen, generator: torch.Generator) -> Tensor | None:
        """The latent, from a subset of the clean image of its own.

        Noise on it trains the denoiser on latents between those of the training images, too.
        """
        if "encoder" not in modules:
            return None
        encoder = cast(PointNetwork, modules["encoder"])
        z = encoder(seen.encoder_image, encoder.geometry(seen.encoder_ids, seen.size))
        if self.latent_noise:
            shape = (global_size(len(z)), *z.shape[1:])
            z = z + self.latent_noise * own_rows(torch.randn(shape, device=z.device, generator=generator))
        return z

    def _draw(
        self, number: int, batch: int, size: Size, valid: Tensor | None, generator: torch.Generator
    ) -> list[Tensor]:
        """Subsets of each image's valid pixels, after one another."""
        count = self.points(size, generator.initial_seed()) if self._count is None else self._count
        if valid is not None:
            whole = global_size(batch)
            return [draw_valid_points(valid, count, generator, self.kind, whole, own_rows) for _ in range(number)]
        drawn = draw_subsets(number, global_size(batch), count, size, generator, self.kind, self._place)
        return [own_rows(ids) for ids in drawn]


class EDMObjective:
    """EDM, for images (B, C, H, W) of any size: lambda(sigma) |D(y + sigma n; sigma) - y|^2 (Eqs. 2 and 8).

    The mean over pixels and channels. lambda makes an error of the image one of the network, which `weighting` weighs.
    sigmas(batch, generator): draws noise levels (batch,), by default as the process does. augment: the probability of
    each transformation of `augment.augment`, in training alone, as dropout is; 0 for none. holes: pixels may be missing
    (NaN), and the mean is over the others. The network, which sees all pixels, sees T(y m) / T(m) + sigma n at those
    without a value, m = 1 at valid pixels: with white noise, where T is nothing, y = 0. channels, drop, labels: as in
    `MollifiedObjective`; where known channels are missing, the network sees zeros.
    """

    def __init__(
        self,
        process: EDM,
        *,
        flip: bool,
        weighting: Weighting = uniform,
        sigmas: DrawTimes | None = None,
        augment: float = 0.0,
        holes: bool = False,
        channels: int | None = None,
        drop: float = 0.0,
    ) -> None:
        self.holes, self.channels, self.drop = holes, channels, drop
        self.process, self.flip, self.weighting, self.augment = process, flip, weighting, augment
        self.sigmas = sigmas if sigmas is not None else process.draw_sigma

    def __call__(
        self, modules: Mapping[str, nn.Module], images: Tensor | Labelled, generator: torch.Generator
    ) -> Tensor:
        pixels, labels = without_labels(images)
        x0, valid = values_of(cast(Tensor, pixels), self.flip, self.holes, generator)
        return self.loss(modules, x0, valid, generator, labels)

    def loss(
        self,
        modules: Mapping[str, nn.Module],
        x0: Tensor,
        valid: Tensor | None,
        generator: torch.Generator,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of images (B, C, H, W), of which the valid pixels (B, H, W) are read; None: all."""
        conditions: dict[str, Tensor] = {}
        if self.augment and modules["denoiser"].training:
            x0, conditions["augmentation"] = augment(x0, self.augment, generator)
        x0, known = split_channels(x0, self.channels)
        process, (batch, channels, height, width) = self.process, x0.shape
        clean = process.clean(x0) if valid is None else known_average(process.clean, x0, valid)
        sigma = own_rows(self.sigmas(global_size(batch), generator))
        noise = process.noise(global_size(batch), channels, (height, width), [generator], own_rows)
        given = Given.drawn(labels, known, self.drop, batch, generator)
        if given.labels is not None:
            conditions["label"] = given.labels

        def network(x: Tensor, c_noise: Tensor) -> Tensor:
            x = x if given.known is None else torch.cat([x, given.known], dim=1)
            return cast(Tensor, modules["denoiser"](x, c_noise, **conditions))

        prediction = process.denoise(network, process.state(clean, noise, sigma), sigma)
        error = (prediction - clean).square()
        error = error.mean(dim=(1, 2, 3)) if valid is None else valid_mean(error, valid)
        return _weighted_mean(error, process.loss_weight(sigma) * self.weighting(process.snr(sigma)))


class LatentObjective:
    """The latent model: the mean error that its process finds with modules["latent"] in latents (B, z_dim).

    drop: the probability of leaving out the label that a latent may have (`Labelled`).
    """

    def __init__(self, process: LatentProcess, *, weighting: Weighting = uniform, drop: float = 0.0) -> None:
        self.process, self.weighting, self.drop = process, weighting, drop

    def __call__(
        self, modules: Mapping[str, nn.Module], batch_of: Tensor | Labelled, generator: torch.Generator
    ) -> Tensor:
        examples, labels = without_labels(batch_of)
        latents = cast(Tensor, examples)
        batch, *rest = latents.shape
        batch = global_size(batch)
        t = own_rows(self.process.draw(batch, generator))
        noise = own_rows(torch.randn((batch, *rest), device=latents.device, generator=generator))
        given = Given.drawn(labels, None, self.drop, len(latents), generator)

        def network(x: Tensor, t: Tensor) -> Tensor:
            return cast(
                Tensor, modules["latent"](x, t) if given.labels is None else modules["latent"](x, t, given.labels)
            )

        error = self.process.error(network, latents, noise, t)
        return _weighted_mean(error, self.weighting(self.process.snr(t)))


def values_of(images: Tensor, flip: bool, holes: bool, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Images (B, C, H, W) as networks see them, flipped at random, and their valid pixels (B, H, W); None: all."""
    x0 = to_values(images)
    if flip:
        x0 = flip_at_random(x0, generator)
    return x0, valid_pixels(x0) if holes else None


def split_channels(x0: Tensor, channels: int | None) -> tuple[Tensor, Tensor | None]:
    """Images (B, C, H, W) as the channels that are generated and those that are known; None: there are none."""
    if channels is None or channels == x0.shape[1]:
        return x0, None
    return x0[:, :channels], x0[:, channels:]


def flip_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each with its columns reversed with probability one half."""
    shape = (global_size(images.shape[0]), 1, 1, 1)
    flipped = own_rows(torch.rand(shape, device=images.device, generator=generator)) < 0.5
    return torch.where(flipped, images.flip(-1), images)


def _mean_square(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of squared errors, weighted as in `_weighted_mean`."""
    if (
        weight is None and prediction.device.type != "cpu"
    ):  # fewer kernels; on CPUs losses are those of earlier versions
        return F.mse_loss(prediction, target)
    return _weighted_mean((prediction - target).square(), weight)


def _weighted_mean(error: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of errors (B, ...), those of image i times weight[i]; None: all alike."""
    if weight is None:
        return error.mean()
    return (weight.view(-1, *[1] * (error.dim() - 1)) * error).mean()

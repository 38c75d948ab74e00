"""Training objectives: the network's prediction, its error, and each image's weight.

An objective is called with the modules to use (so that EMA weights are measured by the same code), a batch, and a
generator on its device, which alone decides every draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from infdiff.coordinates import Size
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.missing import known_average, masked, valid_mean
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Network, PointNetwork
from infdiff.diffusion.times import DrawTimes, uniform_times
from infdiff.diffusion.weighting import Weighting, uniform
from infdiff.images.pixels import to_values, valid_pixels
from infdiff.points import draw_points, draw_valid_points, gather
from infdiff.training.augment import augment


class MollifiedObjective:
    """∞-Diff: denoise mollified images (B, C, H, W) at a random subset of their pixels: uint8, or float32 fields.

    The mean squared error of the prediction there (Eq. 42 for the paper's target). points(size, generator): how many
    for images of a size, in the step that the generator is for; kind: how they are drawn, as `draw_points`. times:
    draws t. sharp_weight: of the second output's error, for a network that has one. holes: pixels may be missing (NaN),
    and all that is read are the others; T x_0 is then T(x_0 m) / T(m), with m = 1 at valid pixels.
    """

    def __init__(
        self,
        process: MollifiedDiffusion,
        *,
        points: Callable[[Size, torch.Generator], int],
        kind: str,
        flip: bool,
        latent_noise: float = 0.0,
        weighting: Weighting = uniform,
        times: DrawTimes | None = None,
        sharp_weight: float = 0.0,
        holes: bool = False,
    ) -> None:
        self.holes = holes
        self.process, self.points, self.kind, self.flip = process, points, kind, flip
        self.latent_noise, self.weighting, self.sharp_weight = latent_noise, weighting, sharp_weight
        self.times = times if times is not None else uniform_times(process.steps)

    def __call__(self, modules: Mapping[str, nn.Module], images: Tensor, generator: torch.Generator) -> Tensor:
        x0 = to_values(images)
        if self.flip:
            x0 = flip_at_random(x0, generator)
        return self.loss(modules, x0, valid_pixels(x0) if self.holes else None, generator)

    def loss(
        self, modules: Mapping[str, nn.Module], x0: Tensor, valid: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """The loss of images (B, C, H, W), of which the valid pixels (B, H, W) are read; None: all."""
        process, (batch, channels, height, width) = self.process, x0.shape
        size = (height, width)
        if valid is None:
            clean = process.clean(x0)
        else:
            x0, clean = masked(x0, valid), known_average(process.clean, x0, valid)
        t = self.times(batch, generator)
        white, noise = process.mollifier.noise_pair(batch, channels, size, [generator])
        ids = self._draw(batch, size, valid, generator)
        values = [gather(image, ids) for image in (x0, white, clean, noise)]
        target = process.training_target(values[0], values[1], values[2], values[3], t)
        state = process.state(values[2], values[3], t)
        z = self._encode(modules, x0, valid, generator)
        denoiser = cast(PointNetwork, modules["denoiser"])
        prediction = denoiser(process.network_input(state, t), denoiser.geometry(ids, size), t, z)
        prediction = prediction.float()
        loss = _weighted_mean((prediction[..., :channels] - target).square(), self.weighting(process.snr(t)))
        if self.sharp_weight:
            error = (prediction[..., channels:] - process.sharp_target(values[0], values[2])).square()
            loss = loss + self.sharp_weight * _weighted_mean(error, process.sharp_weight(t))
        return loss

    def _encode(
        self, modules: Mapping[str, nn.Module], x0: Tensor, valid: Tensor | None, generator: torch.Generator
    ) -> Tensor | None:
        """The latent, from a subset of the clean image of its own.

        Noise on it trains the denoiser on latents between those of the training images, too.
        """
        if "encoder" not in modules:
            return None
        encoder = cast(PointNetwork, modules["encoder"])
        size = (x0.shape[2], x0.shape[3])
        ids = self._draw(x0.shape[0], size, valid, generator)
        z = encoder(gather(x0, ids), encoder.geometry(ids, size))
        if self.latent_noise:
            z = z + self.latent_noise * torch.randn(z.shape, device=z.device, generator=generator)
        return z

    def _draw(self, batch: int, size: Size, valid: Tensor | None, generator: torch.Generator) -> Tensor:
        count = self.points(size, generator)
        if valid is None:
            return draw_points(batch, count, size, generator, self.kind)
        return draw_valid_points(valid, count, generator, self.kind)


class EDMObjective:
    """EDM, for images (B, C, H, W) of any size: lambda(sigma) |D(y + sigma n; sigma) - y|^2 (Eqs. 2 and 8).

    The mean over pixels and channels. lambda makes an error of the image one of the network, which `weighting` weighs.
    sigmas(batch, generator): draws noise levels (batch,), by default as the process does. augment: the probability of
    each transformation of `augment.augment`, in training alone, as dropout is; 0 for none. holes: pixels may be missing
    (NaN), and the mean is over the others. The network, which sees all pixels, sees T(y m) / T(m) + sigma n at those
    without a value, m = 1 at valid pixels: with white noise, where T is nothing, y = 0.
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
    ) -> None:
        self.holes = holes
        self.process, self.flip, self.weighting, self.augment = process, flip, weighting, augment
        self.sigmas = sigmas if sigmas is not None else process.draw_sigma

    def __call__(self, modules: Mapping[str, nn.Module], images: Tensor, generator: torch.Generator) -> Tensor:
        x0 = to_values(images)
        if self.flip:
            x0 = flip_at_random(x0, generator)
        return self.loss(modules, x0, valid_pixels(x0) if self.holes else None, generator)

    def loss(
        self, modules: Mapping[str, nn.Module], x0: Tensor, valid: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """The loss of images (B, C, H, W), of which the valid pixels (B, H, W) are read; None: all."""
        process, (batch, channels, height, width) = self.process, x0.shape
        network: Network = modules["denoiser"]
        if self.augment and modules["denoiser"].training:
            x0, label = augment(x0, self.augment, generator)
            network = partial(modules["denoiser"], label=label)
        clean = process.clean(x0) if valid is None else known_average(process.clean, x0, valid)
        sigma = self.sigmas(batch, generator)
        noise = process.noise(batch, channels, (height, width), [generator])
        prediction = process.denoise(network, process.state(clean, noise, sigma), sigma)
        error = (prediction - clean).square()
        error = error.mean(dim=(1, 2, 3)) if valid is None else valid_mean(error, valid)
        return _weighted_mean(error, process.loss_weight(sigma) * self.weighting(process.snr(sigma)))


class LatentObjective:
    """The latent model: mean absolute error of the noise that modules["latent"] predicts in latents (B, z_dim)."""

    def __init__(self, process: GaussianDiffusion, *, weighting: Weighting = uniform) -> None:
        self.process, self.weighting = process, weighting

    def __call__(self, modules: Mapping[str, nn.Module], latents: Tensor, generator: torch.Generator) -> Tensor:
        process, shape = self.process, (latents.shape[0],)
        t = torch.randint(1, process.steps + 1, shape, device=latents.device, generator=generator)
        noise = torch.randn(latents.shape, device=latents.device, generator=generator)
        prediction = modules["latent"](process.state(latents, noise, t), t)
        error = (prediction.float() - noise).abs()
        return _weighted_mean(error, self.weighting(process.snr(t)))


def flip_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each with its columns reversed with probability one half."""
    flipped = torch.rand(images.shape[0], 1, 1, 1, device=images.device, generator=generator) < 0.5
    return torch.where(flipped, images.flip(-1), images)


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """The mean of errors (B, ...), those of image i times weight[i]."""
    return (weight.view(-1, *[1] * (error.dim() - 1)) * error).mean()

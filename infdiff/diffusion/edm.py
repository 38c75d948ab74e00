"""EDM (Karras et al. 2022): states, preconditioning and loss weights.

States are x = y + sigma n: y is the image, or T of it, and n is white noise, or T of it, scaled to variance 1 at a
point, so that sigma is the noise's standard deviation at every resolution. Steps in sigma move along (x - D) / sigma,
whatever n's covariance is: sigma^2 times it, applied to the score, is D - x, and it drops out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Denoiser, Network


class Preconditioning(NamedTuple):
    """EDM Table 1: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise). Each of sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class EDM:
    """Noise levels for images whose values have standard deviation `sigma_data`.

    In training ln sigma has mean P_mean and standard deviation P_std. mollifier: T; without one noise is white, of
    variance 1 per pixel at every resolution, as DFU is published. With one, samples are T y.
    Raises ValueError unless both standard deviations are positive.
    """

    def __init__(
        self,
        *,
        sigma_data: float = 0.5,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        mollifier: Mollifier | None = None,
    ) -> None:
        if sigma_data <= 0 or P_std <= 0:
            raise ValueError(f"sigma_data={sigma_data}, P_std={P_std}: want positive standard deviations")
        self.sigma_data, self.P_mean, self.P_std = sigma_data, P_mean, P_std
        # A mollifier without width leaves noise as it is, and its base resolution then does not matter.
        self.mollifier = Mollifier(0.0, (1, 1)) if mollifier is None else mollifier

    def clean(self, image: Tensor) -> Tensor:
        """y, for images (B, C, H, W)."""
        return self.mollifier(image) if self.mollifier.sigma else image

    def noise(
        self,
        batch: int,
        channels: int,
        size: Size,
        generators: list[torch.Generator],
        kept: Callable[[Tensor], Tensor] = lambda white: white,
    ) -> Tensor:
        """n: (batch, channels, H, W) float32 of variance 1; image i from generators[i], or all from one generator.

        kept: as `Mollifier.noise_pair`.
        """
        noise = self.mollifier.noise_pair(batch, channels, size, generators, kept)[1]
        return noise / math.sqrt(self.mollifier.noise_variance())

    def state(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x = y + sigma n; sigma (B,)."""
        return clean + sigma.view(-1, *[1] * (clean.dim() - 1)) * noise

    def snr(self, sigma: Tensor) -> Tensor:
        """(B,): signal over noise, for images of standard deviation sigma_data."""
        return (self.sigma_data / sigma).square()

    def draw_sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        """(B,) float32, log-normal: the training distribution of Table 1."""
        normal = torch.randn(batch, device=generator.device, generator=generator)
        return (self.P_mean + self.P_std * normal).exp()

    def preconditioning(self, sigma: Tensor) -> Preconditioning:
        """Table 1, column EDM: the network's input and its target both have variance 1."""
        variance = sigma.square() + self.sigma_data**2
        return Preconditioning(
            c_skip=self.sigma_data**2 / variance,
            c_out=sigma * self.sigma_data * variance.rsqrt(),
            c_in=variance.rsqrt(),
            c_noise=sigma.log() / 4,
        )

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """lambda(sigma) of Table 1: 1 / c_out^2, so that the network's own error counts alike at every sigma."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma), an estimate of y: EDM Eq. 7. x (B, C, H, W), sigma (B,); F is called with c_in x and c_noise."""
        skip, out, scale, c_noise = self.preconditioning(sigma)
        of_images = (-1, *[1] * (x.dim() - 1))
        prediction = network(scale.view(of_images) * x, c_noise).to(x.dtype)
        return skip.view(of_images) * x + out.view(of_images) * prediction

    def denoiser(self, network: Network) -> Denoiser[float]:
        """A network as the function (x, sigma) -> y that `heun` takes."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.denoise(network, x, torch.full((x.shape[0],), sigma, dtype=x.dtype, device=x.device))

        return denoise

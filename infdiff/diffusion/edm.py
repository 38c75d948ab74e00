"""EDM (Karras et al. 2022): preconditioning, loss weights, noise levels and Heun's method.

States are x = y + sigma n: y is the image, or T of it, and n is white noise, or T of it, brought to variance 1 at a
point, so that sigma is the noise's standard deviation at every resolution. Steps in sigma move along (x - D) / sigma,
whatever n's covariance is: sigma^2 times it, applied to the score, is D - x, and it drops out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.samplers import Noise

# (c_in x (B, C, H, W), c_noise (B,)) -> F_theta, of x's shape.
Network = Callable[[Tensor, Tensor], Tensor]
# (x, sigma) -> an estimate of y.
Denoiser = Callable[[Tensor, float], Tensor]


class Preconditioning(NamedTuple):
    """EDM Table 1: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise). Each of sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class EDM:
    """Noise levels for images whose values have standard deviation `data_std`.

    In training ln sigma has mean log_mean and standard deviation log_std (P_mean and P_std). mollifier: T; without one
    noise is white, of variance 1 per pixel at every resolution, as DFU is published. With one, samples are T y.
    Raises ValueError unless both standard deviations are positive.
    """

    def __init__(
        self,
        *,
        data_std: float = 0.5,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        mollifier: Mollifier | None = None,
    ) -> None:
        if data_std <= 0 or log_std <= 0:
            raise ValueError(f"data_std={data_std}, log_std={log_std}: want positive standard deviations")
        self.data_std, self.log_mean, self.log_std = data_std, log_mean, log_std
        # A mollifier without width leaves noise as it is, and its base resolution then does not matter.
        self.mollifier = Mollifier(0.0, (1, 1)) if mollifier is None else mollifier

    def clean(self, image: Tensor) -> Tensor:
        """y, for images (B, C, H, W)."""
        return self.mollifier(image) if self.mollifier.sigma else image

    def noise(self, batch: int, channels: int, size: Size, generators: list[torch.Generator]) -> Tensor:
        """n: (batch, channels, H, W) float32 of variance 1; image i from generators[i], or all from one generator."""
        noise = self.mollifier.noise(batch, channels, size, generators)
        return noise / math.sqrt(self.mollifier.noise_variance())

    def draw_sigma(self, batch: int, generator: torch.Generator) -> Tensor:
        """(B,) float32, log-normal: the training distribution of Table 1."""
        normal = torch.randn(batch, device=generator.device, generator=generator)
        return (self.log_mean + self.log_std * normal).exp()

    def preconditioning(self, sigma: Tensor) -> Preconditioning:
        """Table 1, column EDM: the network's input and what it should give both have variance 1."""
        variance = sigma.square() + self.data_std**2
        return Preconditioning(
            c_skip=self.data_std**2 / variance,
            c_out=sigma * self.data_std * variance.rsqrt(),
            c_in=variance.rsqrt(),
            c_noise=sigma.log() / 4,
        )

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """lambda(sigma) of Table 1: 1 / c_out^2, so that the network's own error counts alike at every sigma."""
        return (sigma.square() + self.data_std**2) / (sigma * self.data_std).square()

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma), an estimate of y: EDM Eq. 7. x (B, C, H, W), sigma (B,)."""
        skip, out, scale, c_noise = self.preconditioning(sigma)
        of_images = (-1, *[1] * (x.dim() - 1))
        prediction = network(scale.view(of_images) * x, c_noise).to(x.dtype)
        return skip.view(of_images) * x + out.view(of_images) * prediction

    def denoiser(self, network: Network) -> Denoiser:
        """A network as the function (x, sigma) -> y that `heun` takes."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return self.denoise(network, x, torch.full((x.shape[0],), sigma, dtype=x.dtype, device=x.device))

        return denoise


def sigma_steps(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """EDM Eq. 5: `steps` noise levels from sigma_max down to sigma_min, evenly spaced in sigma^(1 / rho), then 0.

    One step is that from sigma_max to 0. Raises ValueError for fewer, and unless 0 < sigma_min < sigma_max and rho > 0.
    """
    if steps < 1:
        raise ValueError(f"{steps} sampling steps: want at least 1")
    if not 0 < sigma_min < sigma_max or rho <= 0:
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}: want 0 < sigma_min < sigma_max and rho > 0"
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def heun(
    denoise: Denoiser,
    x: Tensor,
    steps: int = 18,
    *,
    noise: Noise,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """EDM Algorithm 2: Heun's second-order steps from x = n, noise of variance 1, to y; 2 `steps` - 1 evaluations.

    Deterministic (Algorithm 1) with s_churn = 0. Otherwise a step from a level between s_min and s_max begins by adding
    fresh noise, s_noise times noise(), shaped like x.
    """
    sigmas = sigma_steps(steps, sigma_min, sigma_max, rho)
    x = sigmas[0] * x
    for sigma, following in itertools.pairwise(sigmas):
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        raised = sigma * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * noise()
        slope = (x - denoise(x, raised)) / raised
        ahead = x + (following - raised) * slope
        if following > 0:
            slope = (slope + (ahead - denoise(ahead, following)) / following) / 2
            ahead = x + (following - raised) * slope
        x = ahead
    return x

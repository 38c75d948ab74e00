"""The mollified diffusion process (∞-Diff section 3.2, appendix B): marginals, and what a network predicts.

States are mollified: x_t = sqrt(alpha-bar_t) T x_0 + sqrt(1 - alpha-bar_t) T xi   (Eq. 9). Everything that steps
through time works on an estimate of T x_0; the targets below say how a network's output becomes one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Denoiser, Network
from infdiff.diffusion.schedules import AlphaBar

# What the network is trained to predict at each point:
#   mollified_noise  T xi, the paper's choice (Eq. 42)
#   v                the velocity between T x_0 and T xi, each scaled to variance 1
#   noise            xi itself, which is not a function (for the ablation)
#   image            x_0 before mollification (Eq. 35)
TARGETS = ("mollified_noise", "v", "noise", "image")


# Images with their values clipped.
Clip = Callable[[Tensor], Tensor]


def within_one(images: Tensor) -> Tensor:
    """RGB images, clipped to -1 and 1."""
    return images.clamp(-1, 1)


class MollifiedDiffusion:
    """A schedule, a mollifier and a target.

    data_std: standard deviation of the images' values, used to bring the network's input to variance 1. scaled_input:
    whether it is; else the network sees x_t itself. limits: the lowest and the highest value of images, a pair for all
    channels or for each; none: -1 and 1.
    Times t are integers 0..steps; tensors of times have shape (B,).
    """

    def __init__(
        self,
        mollifier: Mollifier,
        *,
        schedule: str = "cosine",
        steps: int = 1000,
        shift: float = 1.0,
        target: str,
        data_std: float = 0.5,
        scaled_input: bool = True,
        limits: Sequence[tuple[float, float]] = (),
    ) -> None:
        if target not in TARGETS:
            raise ValueError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}")
        if data_std <= 0:
            raise ValueError(f"data_std={data_std}: want a positive standard deviation")
        self.mollifier, self.target, self.data_std, self.steps = mollifier, target, data_std, steps
        self.scaled_input, self.limits = scaled_input, tuple(limits) or ((-1.0, 1.0),)
        self.noise_std = mollifier.noise_variance() ** 0.5
        self.schedule = AlphaBar(schedule, steps, shift)
        self.alpha_bar = self.schedule.values

    def with_pixels_of(self, size: Size) -> MollifiedDiffusion:
        """The same process for windows of images of a size: T is as wide there, in pixels, as in training."""
        other = copy.copy(self)
        other.mollifier = Mollifier(self.mollifier.sigma, size)
        return other

    def clipped(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) with their values clipped to the limits."""
        if len(self.limits) == 1:
            return images.clamp(*self.limits[0])
        low, high = images.new_tensor(self.limits).view(-1, 2, 1, 1).unbind(1)
        return images.clamp(low, high)

    def state(self, mollified_image: Tensor, mollified_noise: Tensor, t: Tensor) -> Tensor:
        """x_t of Eq. 9 from T x_0 and T xi."""
        signal, noise = self.schedule.coefficients(t, mollified_image)
        return signal * mollified_image + noise * mollified_noise

    def clean(self, image: Tensor) -> Tensor:
        """T x_0, for images (B, C, H, W)."""
        return self.mollifier(image)

    def noise(self, batch: int, channels: int, size: Size, generators: list[torch.Generator]) -> Tensor:
        """T xi, as `Mollifier.noise`."""
        return self.mollifier.noise(batch, channels, size, generators)

    def snr(self, t: Tensor) -> Tensor:
        """(B,): variance of the signal over that of the noise, for images of standard deviation data_std."""
        bar = self.schedule.at(t, t)
        return bar / (1 - bar) * (self.data_std / self.noise_std) ** 2

    def log_ratio(self) -> Tensor:
        """(steps + 1,): ln(noise std / signal std) at every time, for images of standard deviation data_std."""
        bar = self.alpha_bar.double()
        return 0.5 * ((1 - bar) / bar).log() + math.log(self.noise_std / self.data_std)

    def network_input(self, x: Tensor, t: Tensor) -> Tensor:
        """x_t scaled to variance 1, or x_t itself without `scaled_input`."""
        return x / self._scale(x, t) if self.scaled_input else x

    def training_target(
        self, image: Tensor, noise: Tensor, mollified_image: Tensor, mollified_noise: Tensor, t: Tensor
    ) -> Tensor:
        """The network's target; all arguments at the same points (or pixels)."""
        if self.target == "mollified_noise":
            return mollified_noise
        if self.target == "noise":
            return noise
        if self.target == "image":
            return image
        cos, sin = self._angle(mollified_image, t)
        return cos * mollified_noise / self.noise_std - sin * mollified_image / self.data_std

    def mollified_image(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The network's output, read as an estimate of T x_0. On images (B, C, H, W), since T may have to act."""
        if self.target == "image":
            return self.mollifier(output)
        signal, noise = self.schedule.coefficients(t, x)
        if self.target == "v":
            cos, sin = self._angle(x, t)
            return self.data_std * (cos * x / self._scale(x, t) - sin * output)
        return (x - noise * (self.mollifier(output) if self.target == "noise" else output)) / signal

    def sharp_target(self, image: Tensor, mollified_image: Tensor) -> Tensor:
        """Target of a network's second output: what T takes away, in units of data_std."""
        return (image - mollified_image) / self.data_std

    def sharp_weight(self, t: Tensor) -> Tensor:
        """(B,): cos^2 of the angle between state and signal; where there is only noise, no detail can be known."""
        snr = self.snr(t)
        return snr / (1 + snr)

    def denoiser(self, network: Network, clip: bool = True, sharp_at: int | None = None) -> Denoiser[int]:
        """A network on (scaled x_t, t (B,)), all pixels, as the function (x_t, t) -> T x_0 that samplers take.

        Images have values within `limits`, and T averages them: estimates are clipped to them unless `clip` is False.
        sharp_at: the time of the last step, at which the estimate is x_0 instead, by the network's second output (or
        its only one, where the target is the image itself).
        """

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((x.shape[0],), t, device=x.device)
            output = network(self.network_input(x, times), times).to(x.dtype)
            channels = x.shape[1]
            prediction = output[:, :channels]
            if t != sharp_at:
                estimate = self.mollified_image(prediction, x, times)
            elif self.target == "image":
                estimate = prediction
            else:
                estimate = self.mollified_image(prediction, x, times) + self.data_std * output[:, channels:]
            return self.clipped(estimate) if clip else estimate

        return denoise

    def _scale(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise = self.schedule.coefficients(t, x)
        return ((signal * self.data_std) ** 2 + (noise * self.noise_std) ** 2).sqrt()

    def _angle(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin with x_t / scale = cos * (T x_0 / data_std) + sin * (T xi / noise_std)."""
        signal, noise = self.schedule.coefficients(t, x)
        scale = self._scale(x, t)
        return signal * self.data_std / scale, noise * self.noise_std / scale

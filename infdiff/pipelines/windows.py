"""Detail for enlarged images, from a network that has seen fewer pixels: it is shown windows of the training size.

Photographs look alike at every scale: a window of a large image is to the network what it was trained on, with points
as dense as it knows. Noise is added to what is there, and removed again; between overlapping windows the network's
outputs fade into each other at every step, so that no seam appears (MultiDiffusion, Bar-Tal et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition, guided_network
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Denoiser, Network, Noise
from infdiff.diffusion.samplers import ddpm
from infdiff.diffusion.schedules import noise_times
from infdiff.pipelines.generate import generate

# Part of a window that it shares with the next one, at least.
_SHARED = 0.25
# Windows in the network at a time, so that the memory of features does not grow with their number.
_AT_ONCE = 32

# (scaled states, times (B,), latents (B, z_dim), labels or None, known channels or None) -> as the states.
LatentNetwork = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Windows:
    """Windows (h, w) of images (H, W), h <= H and w <= W. corners: the first row and column of each."""

    size: Size
    window: Size
    corners: Sequence[tuple[int, int]]

    @classmethod
    def over(cls, size: Size, window: Size, part: Tensor | None = None) -> Windows:
        """Evenly spaced, overlapping windows that cover images, or only what is true in `part` (H, W) of them."""
        rows, columns = (_starts(n, w) for n, w in zip(size, window, strict=True))
        corners = [(top, left) for top in rows for left in columns]
        if part is not None:
            height, width = window
            corners = [(top, left) for top, left in corners if part[top : top + height, left : left + width].any()]
        return cls(size, window, corners)

    def split(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (N * B, C, h, w): the first window of all images, then the second one."""
        height, width = self.window
        return torch.cat([images[:, :, top : top + height, left : left + width] for top, left in self.corners])

    def condition(self, condition: Condition) -> Condition:
        """The condition of the windows of `split`, from that of the images."""
        labels = None if condition.labels is None else condition.labels.repeat(len(self.corners), 1)
        known = None if condition.known is None else self.split(condition.known)
        return Condition(labels, known, condition.guidance)

    def join(self, parts: Tensor) -> Tensor:
        """The inverse of `split`: where windows overlap, the mean, in which a window's middle weighs more; else 0."""
        height, width = self.window
        weight = (_ramp(height)[:, None] * _ramp(width)).to(parts)
        pieces = parts.chunk(len(self.corners))
        total = parts.new_zeros(*pieces[0].shape[:2], *self.size)
        weights = parts.new_zeros(self.size)
        for piece, (top, left) in zip(pieces, self.corners, strict=True):
            total[:, :, top : top + height, left : left + width] += weight * piece
            weights[top : top + height, left : left + width] += weight
        return total / weights.clamp(min=1)


def window_of(size: Size, trained: Size) -> Size:
    """The window for images of a size: the training size, or the image where that is smaller."""
    return min(size[0], trained[0]), min(size[1], trained[1])


@dataclass(frozen=True)
class WindowModel:
    """A model that draws detail in windows (h, w).

    encode: windows (N, C, h, w) of images in [-1, 1] -> their latents (N, z_dim). network_for: a number of windows ->
    the network on as many of them. process: `MollifiedDiffusion.with_pixels_of` the images' size. sharp: the last
    estimate is that of the network's second output, not mollified. deblur: called with what the sampler made.
    """

    encode: Callable[[Tensor], Tensor]
    network_for: Callable[[int], LatentNetwork]
    process: MollifiedDiffusion
    window: Size
    sharp: bool = False
    deblur: Callable[[Tensor], Tensor] = lambda images: images


@torch.no_grad()
def add_detail(
    images: Tensor,
    model: WindowModel,
    *,
    seed: int,
    indices: Sequence[int],
    steps: int,
    noise: float,
    hidden: Tensor | None = None,
    condition: Condition = UNCONDITIONAL,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] that lack fine detail -> the same with it, in [-1, 1] or a little beyond.

    steps: evaluations of the network, at most; in each, every window goes through it. noise: std over signal std that
    detail is drawn from; little keeps the blur, much changes what is there. hidden: the pixels (H, W) that
    lack detail, at least one, where the others are to stay what they are. condition: of the images, at their size.
    What is drawn for image i depends on (seed, indices[i]).
    """
    size: Size = (images.shape[2], images.shape[3])
    process, network = model.process, network_in_windows(images, model, hidden, condition)
    times = detail_times(process, noise, steps)

    def sample(denoise: Denoiser[int], begin: Noise, fresh: Noise) -> Tensor:
        t = torch.full((len(images),), times[0], device=images.device)
        start = process.state(process.clean(images), begin(), t)
        return ddpm(denoise, start, times, alpha_bar=process.alpha_bar, noise=fresh)

    sharp_at = times[-2] if model.sharp else None

    def keep_visible(denoise: Denoiser[int]) -> Denoiser[int]:
        mollified = process.clean(images)

        def estimate(x: Tensor, t: int) -> Tensor:
            return torch.where(cast(Tensor, hidden), denoise(x, t), images if t == sharp_at else mollified)

        return estimate

    made = generate(
        network,
        process,
        size=size,
        seed=seed,
        indices=indices,
        device=images.device,
        sample=sample,
        denoiser=partial(process.denoiser, sharp_at=sharp_at),
        guide=None if hidden is None else keep_visible,
        on_step=on_step,
        channels=images.shape[1],
    )
    return model.deblur(made)


def network_in_windows(
    images: Tensor, model: WindowModel, hidden: Tensor | None = None, condition: Condition = UNCONDITIONAL
) -> Network:
    """The network on states of images (B, C, H, W), in windows whose latents are those of the images.

    hidden: as in `add_detail`; the network's output is 0 where no window with hidden pixels is. condition: of the
    images; a window has their label, and its own part of their known channels.
    """
    windows = Windows.over((images.shape[2], images.shape[3]), model.window, hidden)
    latents = [model.encode(some) for some in windows.split(images).split(_AT_ONCE)]
    # What they precompute is large: one for each number of windows, which is the same for all but the last ones.
    shared = {count: model.network_for(count) for count in {len(z) for z in latents}}
    places = torch.arange(sum(map(len, latents))).split(_AT_ONCE)
    seen = windows.condition(condition)
    networks = [
        guided_network(partial(_with_latent, shared[len(z)], z), seen.rows(some))
        for z, some in zip(latents, places, strict=True)
    ]

    def network(x: Tensor, t: Tensor) -> Tensor:
        parts = windows.split(x).split(_AT_ONCE)
        made = [one(part, t[:1].expand(len(part))) for one, part in zip(networks, parts, strict=True)]
        return windows.join(torch.cat(made))

    return network


def _with_latent(
    network: LatentNetwork, z: Tensor, x: Tensor, t: Tensor, labels: Tensor | None, known: Tensor | None
) -> Tensor:
    return network(x, t, z, labels, known)


def detail_times(process: MollifiedDiffusion, noise: float, steps: int) -> list[int]:
    """The times of at most `steps` steps from a noise level, noise std over signal std, to the clean image."""
    first = int((process.log_ratio() - math.log(noise)).abs().argmin())
    return noise_times(process.alpha_bar[: first + 1], min(steps, first))


def _starts(length: int, window: int) -> list[int]:
    count = 1 + math.ceil((length - window) / (window * (1 - _SHARED)))
    return [round(i * (length - window) / max(count - 1, 1)) for i in range(count)]


def _ramp(length: int) -> Tensor:
    """(length,): distance to the nearer end, up to a quarter of the length."""
    place = torch.arange(length)
    return torch.minimum(place + 1, length - place).clamp(max=max(1, round(_SHARED * length))).float()

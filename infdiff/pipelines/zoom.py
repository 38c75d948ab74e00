"""An image that is never finished: each level of a pyramid adds detail to the one before, in any part of it.

A part of a level is drawn from the same part of the coarser level, enlarged: noise is added to it and removed again by
a network that sees windows of its training size, and every estimate is projected onto the images that agree with the
coarser level. The noise is a function of the place (`diffusion.noise_pyramid`), and the sampler adds none: a part is a
function of what it refines, and neighbours that are drawn apart meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.dct import resample
from infdiff.diffusion.measurements import Measurement, Reduction
from infdiff.diffusion.process import Denoiser, Noise
from infdiff.diffusion.samplers import dpm_solver_2m
from infdiff.pipelines.restore import Guidance, restore
from infdiff.pipelines.super_resolve import back_project
from infdiff.pipelines.windows import WindowModel, detail_times, network_in_windows

# Noise std over signal std that a level's detail is drawn from, and steps to remove it (chosen by eye).
_NOISE = 1.0
REFINING_STEPS = 4


@dataclass(frozen=True)
class Region:
    """Rows [top, bottom) and columns [left, right) of a level."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def of(self, images: Tensor) -> Tensor:
        """This part of images (..., H, W)."""
        return images[..., self.top : self.bottom, self.left : self.right]

    def within(self, other: Region) -> Region:
        """The same region, counted from the corner of another one that holds it."""
        top, left = other.top, other.left
        return Region(self.top - top, self.left - left, self.bottom - top, self.right - left)

    def halved(self) -> Region:
        """The pixels of the coarser level that it covers; its edges are even numbers."""
        return Region(self.top // 2, self.left // 2, self.bottom // 2, self.right // 2)


def with_surroundings(part: Region, size: Size, margin: int) -> Region:
    """A region with even edges that holds `part` of a level of `size` and `margin` pixels around it.

    Near a border it moves inwards: regions of parts of one size are of one size, as far as the level is large enough.
    """

    def span(first: int, end: int, length: int) -> tuple[int, int]:
        wanted = min(end - first + 2 * margin, length)
        start = min(max(first - margin, 0), length - wanted)
        return start - start % 2, start + wanted + (start + wanted) % 2

    (top, bottom), (left, right) = span(part.top, part.bottom, size[0]), span(part.left, part.right, size[1])
    return Region(top, left, bottom, right)


@torch.no_grad()
def refine(
    coarse: Tensor,
    noise: Tensor,
    model: WindowModel,
    *,
    steps: int = REFINING_STEPS,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """A part of a level (1, C, h, w), in [-1, 1] -> the same part of the next one, (1, C, 2 h, 2 w), in [-1, 1].

    noise: T xi there, (1, C, 2 h, 2 w). model: its process is that `with_pixels_of` the result's size. Averaged over
    2 x 2 pixels, the result is the coarser part.
    """
    size: Size = (noise.shape[2], noise.shape[3])
    small: Size = (coarse.shape[2], coarse.shape[3])
    enlarged = back_project(resample(coarse, size), coarse)
    process, reduction = model.process, Reduction(size, small)
    times = detail_times(process, _NOISE, steps)

    def sample(denoise: Denoiser[int], begin: Noise, fresh: Noise) -> Tensor:
        t = torch.full((1,), times[0], device=coarse.device)
        start = process.state(process.clean(enlarged), begin(), t)
        return dpm_solver_2m(denoise, start, times, alpha_bar=process.alpha_bar, noise=fresh)

    made = restore(
        network_in_windows(enlarged, model),
        process,
        Measurement(coarse, reduction, reduction.A_dagger),
        Guidance("projection", iterations=0),
        size=size,
        seed=0,
        indices=[0],
        device=coarse.device,
        sample=sample,
        start=noise,
        sharp_at=times[-2] if model.sharp else None,
        on_step=on_step,
        channels=coarse.shape[1],
    )
    return back_project(model.deblur(made), coarse)

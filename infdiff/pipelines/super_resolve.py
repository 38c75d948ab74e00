"""Super-resolution: images at a larger size, with detail that the model adds (∞-Diff section 5, Fig. 8).

"windows" draws detail in windows of the training size, whose density of points the network knows, and corrects the
result until it agrees with the input. "encode" is the paper's way: the small image's latent, sampled larger. "guided"
keeps what the input says: it starts from the input's own DDIM noise, read at the larger size as the function it is,
and guides every estimate towards the input, as `restore` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.diffusion.dct import resample
from infdiff.diffusion.measurements import Measurement, Reduction
from infdiff.diffusion.mollified import Clip, MollifiedDiffusion, within_one
from infdiff.diffusion.process import Denoiser, Network, Noise
from infdiff.diffusion.samplers import ddim, ddim_inversion
from infdiff.pipelines.generate import generate
from infdiff.pipelines.restore import Guidance, restore
from infdiff.pipelines.windows import WindowModel, add_detail

METHODS = ("windows", "guided", "encode")

_BACK_PROJECTIONS = 6
# Noise std over signal std that detail is drawn from (measured).
_NOISE = 0.5


def default_method(size: Size, trained: Size) -> str:
    """The best way to make images of a size that are given in part: guided as far as training went, or windows."""
    return "windows" if size[0] > trained[0] or size[1] > trained[1] else "guided"


@torch.no_grad()
def super_resolve_in_windows(
    model: WindowModel,
    small: Tensor,
    *,
    size: Size,
    seed: int,
    steps: int,
    indices: Sequence[int] | None = None,
    condition: Condition = UNCONDITIONAL,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Images `small` (B, C, h, w) in [-1, 1] -> (B, C, H, W) of `size`, in [-1, 1], by `windows.add_detail`.

    condition: at that size.
    """
    clip = model.process.clipped
    enlarged = back_project(resample(small, size), small, clip)
    indices = range(len(small)) if indices is None else indices
    detailed = add_detail(
        enlarged,
        model,
        seed=seed,
        indices=indices,
        steps=steps,
        noise=_NOISE,
        condition=condition,
        on_step=on_step,
    )
    return back_project(detailed, small, clip)


@torch.no_grad()
def super_resolve(
    network_at: Callable[[Size], Network],
    process: MollifiedDiffusion,
    small: Tensor,
    *,
    size: Size,
    seed: int,
    times: Sequence[int],
    indices: Sequence[int] | None = None,
    method: str = "guided",
    guidance: Guidance,
    sharp_at: int | None = None,
    deblur: Callable[[Tensor], Tensor] = lambda images: images,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Images `small` (B, C, h, w) in [-1, 1] -> (B, C, H, W) of `size`, in [-1, 1].

    network_at: the network at a size, with the small images' latents and conditions; guidance by gradients
    differentiates it. times: of the steps.
    indices: numbers of the images, by default from 0: what is drawn for image i depends on (seed, indices[i]) alone.
    sharp_at: as `MollifiedDiffusion.denoiser`. deblur: called with what the sampler made.
    method: "guided" or "encode". guidance: of "guided".
    """
    from_size, bars = small_size(small), process.alpha_bar

    def sample(denoise: Denoiser[int], first: Noise, noise: Noise) -> Tensor:
        return ddim(denoise, first(), times, alpha_bar=bars, noise=noise)

    given: dict[str, Any] = {
        "size": size,
        "seed": seed,
        "indices": range(len(small)) if indices is None else indices,
        "device": small.device,
        "sample": sample,
        "on_step": on_step,
        "channels": small.shape[1],
    }
    if method != "guided":
        return deblur(
            generate(network_at(size), process, denoiser=partial(process.denoiser, sharp_at=sharp_at), **given)
        )
    mollified, reduction = process.mollifier(small), Reduction(size, from_size)
    noise = ddim_inversion(process.denoiser(network_at(from_size)), mollified, times, alpha_bar=bars)
    made = restore(
        network_at(size),
        process,
        Measurement(small, reduction, reduction.A_dagger, mollified=mollified),
        guidance,
        start=resample(noise, size),
        sharp_at=sharp_at,
        **given,
    )
    return back_project(deblur(made), small, process.clipped)


def small_size(images: Tensor) -> Size:
    """Size (H, W) of images (B, C, H, W)."""
    return images.shape[2], images.shape[3]


def reduce(images: Tensor, size: Size) -> Tensor:
    """Average images (B, C, H, W) over the cells of a smaller size, as its pixels would."""
    return F.interpolate(images, size, mode="area")


def back_project(images: Tensor, small: Tensor, clip: Clip = within_one) -> Tensor:
    """Correct images smoothly until, reduced, they are the small ones; clip: to the values that images have."""
    size = small_size(images)
    for _ in range(_BACK_PROJECTIONS):
        missing = small - reduce(images, small_size(small))
        images = clip(images + F.interpolate(missing, size, mode="bicubic", align_corners=False))
    return images

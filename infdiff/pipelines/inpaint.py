"""Inpainting by reconstruction guidance (∞-Diff section 5, Fig. 9): fill a masked part so that it fits the rest.

At sizes beyond the training size this is done to the image reduced to it; the filling is then enlarged, and gets its
detail in windows of the training size, in sight of the visible pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.diffusion.dct import resample
from infdiff.diffusion.measurements import Mask, Measurement
from infdiff.diffusion.mollified import Clip, MollifiedDiffusion, within_one
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Network, PointNetwork, Sample
from infdiff.images.pixels import to_values
from infdiff.pipelines.restore import Guidance, restore
from infdiff.pipelines.super_resolve import reduce
from infdiff.pipelines.windows import WindowModel, add_detail
from infdiff.points import gather
from infdiff.seeding import generator_for

# Width of a seam's blend, as a fraction of the image's smaller side.
_SEAM = 1 / 64
# Noise std over signal std that a filling's detail is drawn from: with less it stays softer than what is around it.
_NOISE = 2.0


def encode_visible(encoder: PointNetwork, image: Tensor, hidden: Tensor, *, points: int, seed: int) -> Tensor:
    """The latent (1, z_dim) of an image (1, C, H, W) from pixels that are not hidden (H, W).

    At most `points` of them, drawn at random; fewer where fewer are visible. Raises ValueError when none is.
    """
    visible = (~hidden).flatten().nonzero()[:, 0]
    if len(visible) == 0:
        raise ValueError("every pixel is hidden: there is nothing to encode")
    generator = generator_for(image.device, seed, "encode visible")
    order = torch.randperm(len(visible), device=image.device, generator=generator)[:points]
    ids = visible[order].sort().values[None]
    return encoder(gather(to_values(image), ids), encoder.geometry(ids, (image.shape[2], image.shape[3])))


@torch.no_grad()
def inpaint(
    network: Network,
    process: MollifiedDiffusion,
    image: Tensor,
    hidden: Tensor,
    *,
    seed: int,
    indices: Sequence[int],
    sample: Sample[int],
    guidance: Guidance,
    sharp_at: int | None = None,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Variants (N, C, H, W) in [-1, 1] of an image (1, C, H, W), with new content at its `hidden` pixels (H, W).

    network: of N images of its size, differentiable for guidance by gradients. sharp_at: as
    `MollifiedDiffusion.denoiser`. The visible pixels are close to the image's, not equal: see `paste`.
    """
    size: Size = (image.shape[2], image.shape[3])
    mask = Mask(~hidden)
    mollified = None
    if guidance.differentiates:
        # T mixes hidden pixels into visible ones near the border: fill them in smoothly first.
        mollified = mask(process.mollifier(filled_in(image, hidden)))
    return restore(
        network,
        process,
        Measurement(mask(image), mask, mask.A_dagger, mollified=mollified),
        guidance,
        size=size,
        seed=seed,
        indices=indices,
        device=image.device,
        sample=sample,
        sharp_at=sharp_at,
        on_step=on_step,
        channels=image.shape[1],
    )


def reduce_visible(image: Tensor, hidden: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """An image (1, C, H, W) and its hidden pixels (H, W) at a smaller size, the means over visible pixels alone.

    A pixel of the smaller size is hidden if all that it covers is.
    """
    visible = (~hidden).to(image.dtype).expand(1, 1, -1, -1)
    share = reduce(visible, size)
    return reduce(visible * image, size) / share.clamp(min=torch.finfo(share.dtype).tiny), share[0, 0] == 0


def detail_filling(
    filled: Tensor,
    image: Tensor,
    hidden: Tensor,
    model: WindowModel,
    *,
    seed: int,
    indices: Sequence[int],
    steps: int,
    condition: Condition = UNCONDITIONAL,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Variants (N, C, H, W) in [-1, 1] of an image (1, C, H, W); `filled` (N, C, h, w) are those of its reduction.

    hidden: (H, W). condition: of the variants, at the image's size. The visible pixels are close to the image's, not
    equal: see `paste`.
    """
    enlarged = paste(resample(filled, (image.shape[2], image.shape[3])), image, hidden, model.process.clipped)
    return add_detail(
        enlarged,
        model,
        seed=seed,
        indices=indices,
        steps=steps,
        noise=_NOISE,
        hidden=hidden,
        condition=condition,
        on_step=on_step,
    )


def paste(images: Tensor, image: Tensor, hidden: Tensor, clip: Clip = within_one) -> Tensor:
    """The image's visible pixels exactly, the variants' hidden ones, with the step between them spread inwards.

    images (N, C, H, W), image (1, C, H, W), hidden (H, W). clip: to the values that images have.
    """
    blur = _blur((image.shape[2], image.shape[3]))
    visible = (~hidden).to(images.dtype).expand(1, 1, -1, -1)
    share = blur(visible)
    # The variants' error on the visible side, continued into the hidden one, where it fades.
    step = blur(visible * (image - images)) / share.clamp(min=1e-3)
    blended = images + (2 * share).clamp(max=1.0) * step
    return torch.where(hidden, clip(blended), image)


def filled_in(image: Tensor, hidden: Tensor) -> Tensor:
    """The image (1, C, H, W) with a smooth continuation of its visible pixels where it is hidden (H, W)."""
    visible = (~hidden).to(image.dtype).expand(1, 1, -1, -1)
    blur = _blur((image.shape[2], image.shape[3]))
    return torch.where(hidden, blur(visible * image.nan_to_num(0)) / blur(visible).clamp(min=1e-3), image)


def _blur(size: Size) -> Callable[[Tensor], Tensor]:
    """A Gaussian over a seam's width."""
    return Mollifier(max(1.0, _SEAM * min(size)), size)

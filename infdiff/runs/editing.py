"""Given images, changed with a trained model of ∞-Diff: enlarged, filled and interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size, within
from infdiff.diffusion.conditions import Condition
from infdiff.diffusion.guidance import fixed_lengths
from infdiff.images.pixels import to_values, valid_pixels
from infdiff.methods.sampling import SamplingOptions, tile_rows
from infdiff.methods.sizes import point_count, training_size
from infdiff.pipelines.inpaint import detail_filling, encode_visible, filled_in, inpaint, paste, reduce_visible
from infdiff.pipelines.interpolate import interpolate
from infdiff.pipelines.restore import Guidance
from infdiff.pipelines.super_resolve import (
    METHODS,
    default_method,
    small_size,
    super_resolve,
)
from infdiff.runs.conditions import ConditionsAt, unconditional
from infdiff.runs.trained import OnStep, TrainedModel
from infdiff.seeding import generator_for

# The better ones (measured: docs/quality.md).
ENLARGING_GUIDANCE, FILLING_GUIDANCE = "projection", "gradient"
FILLING_METHODS = ("windows", "guided")
# Fewer steps leave fillings smoky, and without fresh noise in each they stay what the first noise made them (measured).
_FILLING_STEPS = 50
_FILLING_SAMPLER = "ddpm"


def enlarging_method(run: TrainedModel, size: Size) -> str:
    """The way of super-resolution to a size that is best for a run."""
    return default_method(size, training_size(run.config))


def filling_method(run: TrainedModel, size: Size) -> str:
    """The way of inpainting images of a size that is best for a run."""
    return "guided" if run.encoder is None else enlarging_method(run, size)


def filling_options(
    run: TrainedModel,
    size: Size | None = None,
    *,
    steps: int | None = None,
    deblur: str | None = None,
    tile: str | int | None = None,
) -> SamplingOptions:
    """Options for `fill` and `restore`: fresh noise in every step, and at least 50 of them, if none are asked for.

    Raises OptionError for options that cannot work, and UserError for a run of another method than ∞-Diff.
    """
    steps = max(run.config.sample.steps, _FILLING_STEPS) if steps is None else steps
    method = run.infinity_diff
    options = SamplingOptions.of(method, sampler=_FILLING_SAMPLER, steps=steps, deblur=deblur)
    if size is None:
        return options
    return replace(options, tile=tile_rows(method, size, None if tile is None else str(tile), run.device))


def enlarging_options(
    run: TrainedModel,
    size: Size,
    *,
    steps: int | None = None,
    deblur: str | None = None,
    tile: str | int | None = None,
) -> SamplingOptions:
    """Options for `enlarge`: the network sees all pixels of the size, and in tiles where it is large.

    Raises OptionError for options that cannot work.
    """
    return SamplingOptions.of(run.method, size, run.device, upscale="none", steps=steps, deblur=deblur, tile=tile)


@torch.no_grad()
def enlarge(
    run: TrainedModel,
    images: Tensor,
    size: Size,
    *,
    options: SamplingOptions,
    method: str | None = None,
    guidance: str | None = None,
    weight: float = 1.0,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    conditions: ConditionsAt = unconditional,
    rounded: bool = True,
    on_step: OnStep | None = None,
) -> Tensor:
    """Small images (B, 3, h, w) uint8 at a larger size, (B, 3, H, W); see `pipelines.super_resolve`.

    method: one of `METHODS` there, None for `enlarging_method`. guidance, weight: of "guided", as `restore.Guidance`.
    options: those of `enlarging_options`: steps, deblur, and tile with "encode" and guidance by projection (gradients
    take all rows at once); the sampler is ddim, and ddpm in windows. conditions: those of
    `TrainedModel.conditions_at`. What is missing of a field (NaN) stays so. Raises ValueError for an unknown method,
    and UserError for a run without encoder.
    """
    method = method or enlarging_method(run, size)
    guide = Guidance(guidance or ENLARGING_GUIDANCE, weight)
    if method not in METHODS:
        raise ValueError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    trained, small = run.infinity_diff, to_values(images.to(run.device))
    known = valid_pixels(small)
    if run.field is not None:
        small = torch.cat([filled_in(image[None], ~valid) for image, valid in zip(small, known, strict=True)])
    numbers = range(len(small)) if indices is None else indices

    def condition(at: Size) -> Condition:
        return conditions(at).of(numbers, run.device)

    if method == "windows":
        made = run.enlarge_in_windows(small, size, seed, numbers, options, on_step, condition(size))
        return with_missing(run.as_asked(made, rounded), known)
    z = run.encode(images)
    rows = None if method == "guided" and guide.differentiates else options.tile
    out = super_resolve(
        lambda at: trained.network_at(run.denoiser, at, z, len(images), run.device, rows, condition(at)),
        trained.process,
        small,
        size=size,
        seed=seed,
        times=trained.times(options.steps),
        indices=numbers,
        method=method,
        guidance=guide,
        sharp_at=trained.sharp_at(options),
        deblur=lambda images: trained.deblurred(images, options),
        on_step=on_step,
    )
    return with_missing(run.as_asked(out, rounded), known)


@torch.no_grad()
def morph(
    run: TrainedModel, images: Tensor, frames: int, *, options: SamplingOptions, on_step: OnStep | None = None
) -> Tensor:
    """Frames (frames, 3, H, W) uint8 from the first to the second of two images (2, 3, H, W) uint8, both included.

    options: steps, deblur and tile; the sampler is ddim. Raises UserError for a run without encoder.
    """
    z, trained, size = run.encode(images), run.infinity_diff, small_size(images)
    out = interpolate(
        lambda z: trained.network_at(run.denoiser, size, z, len(z), run.device, options.tile),
        trained.process,
        to_values(images.to(run.device)),
        z=z,
        frames=frames,
        times=trained.times(options.steps),
        sharp_at=trained.sharp_at(options),
        on_step=on_step,
    )
    return run.as_asked(trained.deblurred(out, options), rounded=True)


@torch.no_grad()
def fill(
    run: TrainedModel,
    image: Tensor,
    hidden: Tensor,
    indices: Sequence[int],
    *,
    options: SamplingOptions,
    method: str | None = None,
    guidance: str | None = None,
    weight: float = 1.0,
    fixed_weight: float | None = None,
    seed: int = 0,
    variety: float = 0.0,
    conditions: ConditionsAt = unconditional,
    pasted: bool = True,
    on_step: OnStep | None = None,
) -> Tensor:
    """Variants (N, 3, H, W) uint8 of an image (1, 3, H, W) uint8 with new content in `hidden` (H, W) bool.

    The missing pixels of a field are filled, too.
    method: "guided" at the image's own size, or "windows": guided at the training size, then detail in windows of it;
    None for `filling_method`. variety: how far the latent of the visible pixels is diffused, 0 to 1; more than 0 needs
    a latent model. options: those of `filling_options`. guidance, weight: as `restore.Guidance`; fixed_weight: the
    paper's lambda instead, for gradients. conditions: those of `TrainedModel.conditions_at`, of the variants. pasted:
    the visible pixels are the image's exactly. Raises ValueError for an unknown method, and UserError when a model that
    this needs is missing.
    """
    image, hidden = image.to(run.device), hidden.to(run.device)
    clean, size = to_values(image), small_size(image)
    if run.field is not None:
        hidden = hidden | ~valid_pixels(clean)[0]
        clean = clean.nan_to_num(0)
    method = method or filling_method(run, size)
    if method not in FILLING_METHODS:
        raise ValueError(f"method {method!r}: choose one of {', '.join(FILLING_METHODS)}")
    times, bars = run.infinity_diff.times(options.steps), run.infinity_diff.process.alpha_bar
    fixed = None if fixed_weight is None else fixed_lengths(fixed_weight, times, bars)
    guided = partial(
        _fill_guided,
        run,
        indices=indices,
        options=options if method == "guided" else replace(options, tile=None),
        guidance=Guidance(guidance or FILLING_GUIDANCE, weight, fixed=fixed),
        seed=seed,
        variety=variety,
        conditions=conditions,
        on_step=on_step,
    )
    if method == "guided":
        out = guided(clean, hidden)
    else:
        model = run.window_model(size, options)
        filled = guided(*reduce_visible(clean, hidden, within(size, training_size(run.config))))
        out = detail_filling(
            filled,
            clean,
            hidden,
            model,
            seed=seed,
            indices=indices,
            steps=options.steps,
            condition=conditions(size).of(indices, run.device),
            on_step=on_step,
        )
    if not pasted:
        return run.as_asked(out, rounded=True)
    pasted_in = paste(out, clean, hidden, run.infinity_diff.process.clipped)
    return torch.where(hidden, run.as_held(pasted_in), image).cpu()


def with_missing(images: Tensor, known: Tensor) -> Tensor:
    """Enlarged fields (B, C, H, W) with NaN where most of what is below was missing; known (B, h, w)."""
    if images.dtype == torch.uint8 or bool(known.all()):
        return images
    share = F.interpolate(known[:, None].float().cpu(), small_size(images), mode="bilinear")
    return torch.where(share < 0.5, torch.nan, images)


def _fill_guided(
    run: TrainedModel,
    clean: Tensor,
    hidden: Tensor,
    *,
    indices: Sequence[int],
    options: SamplingOptions,
    guidance: Guidance,
    seed: int,
    variety: float,
    conditions: ConditionsAt,
    on_step: OnStep | None,
) -> Tensor:
    trained, size = run.infinity_diff, small_size(clean)
    rows = None if guidance.differentiates else options.tile
    condition = conditions(size).of(indices, run.device)
    z = _latents_around(run, run.as_held(clean), hidden, indices, seed, variety, condition)
    out = inpaint(
        trained.network_at(run.denoiser, size, z, len(indices), run.device, rows, condition),
        trained.process,
        clean,
        hidden,
        seed=seed,
        indices=indices,
        sample=trained.sampler(options),
        guidance=guidance,
        sharp_at=trained.sharp_at(options),
        on_step=on_step,
    )
    return trained.deblurred(out, options)


def _latents_around(
    run: TrainedModel,
    image: Tensor,
    hidden: Tensor,
    indices: Sequence[int],
    seed: int,
    variety: float,
    condition: Condition,
) -> Tensor | None:
    """A latent for each variant: new ones if every pixel is hidden, None without encoder."""
    generators = [generator_for(run.device, seed, "latent", i) for i in indices]
    if run.encoder is None:
        return None
    if bool(hidden.all()):
        return None if run.latents is None else run.latents.sample(generators, condition=condition)
    latent = encode_visible(run.encoder, image, hidden, points=point_count(run.config), seed=seed)
    if variety == 0 or run.latents is None:
        return latent.expand(len(generators), -1)
    return run.latents.vary(latent, generators, variety, condition)

"""Restoration: images from any measurement of them, such as a smaller, masked or blurred image.

Two ways of guidance. "gradient" follows the gradient of the disagreement through the network (∞-Diff section 5), for
any operator that can be differentiated. "projection" sets what a linear operator measures, by its pseudo-inverse, and
never differentiates the network: it takes the memory of sampling, tiles included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from infdiff.coordinates import Size, scale_of
from infdiff.diffusion.guidance import guided, noise_share
from infdiff.diffusion.measurements import Measurement
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Denoiser, Network, Sample
from infdiff.diffusion.projection import projected
from infdiff.pipelines.generate import generate

GUIDANCE = ("gradient", "projection")

# Epsilon of the inverse of T within a step: detail that T keeps less of is left as the network has it.
_EPSILON = 0.02


@dataclass(frozen=True)
class Guidance:
    """Settings of what leads estimates towards a measurement.

    kind: one of `GUIDANCE`. weight: of every step, 0 (no guidance) to 2. iterations: gradients in each step, or further
    evaluations of the network by projection. fixed: lengths of the gradient's steps, as `guided`.
    """

    kind: str = "gradient"
    weight: float = 1.0
    iterations: int = 1
    fixed: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in GUIDANCE:
            raise ValueError(f"guidance {self.kind!r}: choose one of {', '.join(GUIDANCE)}")

    @property
    def differentiates(self) -> bool:
        """True where the network is differentiated, which takes all rows of an image at once."""
        return self.kind == "gradient"


@torch.no_grad()
def restore(
    network: Network,
    process: MollifiedDiffusion,
    measurement: Measurement,
    guidance: Guidance,
    *,
    size: Size,
    seed: int,
    indices: Sequence[int],
    device: torch.device,
    sample: Sample[int],
    start: Tensor | None = None,
    sharp_at: int | None = None,
    linear: bool = True,
    on_step: Callable[[], object] | None = None,
    channels: int = 3,
) -> Tensor:
    """Images (N, C, H, W) of `size`, within the limits or a little beyond, whose measurement is close to the one given.

    network: of N images; differentiable, for the gradient. start: noise to begin with instead of drawn noise. sharp_at:
    as `MollifiedDiffusion.denoiser`; without, images are T x_0. linear: False for an operator that gradients have to
    linearise. Image `indices[i]` depends on (seed, indices[i]) and the measurement alone.
    """
    make = _gradient if guidance.differentiates else _projection
    return generate(
        network,
        process,
        size=size,
        seed=seed,
        indices=indices,
        device=device,
        sample=sample,
        start=start,
        denoiser=partial(process.denoiser, sharp_at=sharp_at),
        guide=partial(make, process, measurement, guidance, size, sharp_at, linear),
        on_step=on_step,
        channels=channels,
    )


def _gradient(
    process: MollifiedDiffusion,
    measurement: Measurement,
    guidance: Guidance,
    size: Size,
    sharp_at: int | None,
    linear: bool,
    denoise: Denoiser[int],
) -> Denoiser[int]:
    operator, sharpen = measurement.operator, _sharpen(process)
    last = None if sharp_at is None else (sharp_at, operator, measurement.values)
    mollified = measurement.mollified

    def noise(t: int) -> float:
        return noise_share(measurement.noise**2, float(process.alpha_bar[t]), _white_std(process, size) ** 2)

    return guided(
        denoise,
        operator if mollified is not None else lambda image: operator(sharpen(image)),
        measurement.values if mollified is None else mollified,
        guidance.weight,
        # The paper's step follows the gradient itself.
        process.mollifier.twice if guidance.fixed is None else lambda gradient: gradient,
        last,
        guidance.fixed,
        guidance.iterations,
        noise,
        linear,
    )


def _projection(
    process: MollifiedDiffusion,
    measurement: Measurement,
    guidance: Guidance,
    size: Size,
    sharp_at: int | None,
    linear: bool,
    denoise: Denoiser[int],
) -> Denoiser[int]:
    if not linear:
        raise ValueError("projection is for linear operators")
    return projected(
        denoise,
        measurement,
        alpha_bar=process.alpha_bar,
        data_std=process.data_std,
        weight=guidance.weight,
        iterations=guidance.iterations,
        mollify=process.mollifier,
        sharpen=_sharpen(process),
        white_std=_white_std(process, size),
        sharp_at=sharp_at,
    )


def _sharpen(process: MollifiedDiffusion) -> Callable[[Tensor], Tensor]:
    mollifier = process.mollifier
    return (lambda image: mollifier.wiener_inverse(image, _EPSILON)) if mollifier.sigma else lambda image: image


def _white_std(process: MollifiedDiffusion, size: Size) -> float:
    """Standard deviation of the white noise xi in each pixel of a size."""
    down, across = scale_of(size, process.mollifier.base)
    return float((down * across) ** 0.5) if process.mollifier.sigma else 1.0

"""Guidance by projection (Wang et al. 2023, DDNM): estimates whose measured part is what was measured.

Nothing is differentiated: the network is evaluated, so memory is that of sampling. What the unmeasured part of an image
has to do with the measured one, later steps find out as the state agrees more and more; or further evaluations in the
same step, which show how the estimate answers when the state's signal moves (`iterations`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.diffusion.measurements import Measurement
from infdiff.diffusion.process import Denoiser
from infdiff.diffusion.residuals import conjugate_residuals


def _same(images: Tensor) -> Tensor:
    return images


def projected(
    denoise: Denoiser[int],
    measurement: Measurement,
    *,
    alpha_bar: Tensor,
    data_std: float,
    weight: float = 1.0,
    iterations: int = 0,
    mollify: Callable[[Tensor], Tensor] = _same,
    sharpen: Callable[[Tensor], Tensor] = _same,
    white_std: float = 1.0,
    sharp_at: int | None = None,
) -> Denoiser[int]:
    """A denoiser whose estimates, sharpened, agree with a measurement by a linear operator A with a pseudo-inverse A^+.

    estimate + T A^+ (y - A T^-1 estimate), scaled by r^2 / (r^2 + noise^2) where the measurement is noisy; r^2 is the
    variance of white data of standard deviation data_std given the state (Song et al. 2023, ΠGDM).

    mollify, sharpen: T and a stable inverse of it; detail that it loses is left as the network has it. white_std:
    of the white noise xi, per pixel. sharp_at: the time of the last step, whose estimate is not mollified.
    iterations: further evaluations in each step, of conjugate residuals in the measured part. For Gaussian data they
    lead to E[x_0 | x_t, y] exactly, from the first of which the unmeasured part follows the measured one at once.
    """
    noise = measurement.noise_in_image

    def estimate(x: Tensor, t: int) -> Tensor:
        to_state, to_image = (_same, _same) if t == sharp_at else (mollify, sharpen)
        bar = float(alpha_bar[t])
        variance = white_std**2 * (1 - bar) / bar
        image = denoise(x, t)
        sharp = to_image(image)
        # Compared as sharp as an estimate can be: what `sharpen` loses is no disagreement.
        wanted = to_image(to_state(measurement.agreed(sharp)))
        remaining = measurement.on_range(wanted - sharp)
        del sharp, wanted  # as large as x: not to be held while the network runs
        change: Tensor | None = None
        if iterations:

            def apply(part: Tensor) -> tuple[Tensor, Tensor]:
                moved = variance * (denoise(x + bar**0.5 * mollify(part), t) - image)
                return moved, measurement.on_range(to_image(moved)) + noise**2 * part

            change, remaining = conjugate_residuals(apply, remaining, iterations)
        spread = variance * data_std**2 / (variance + data_std**2)
        trust = spread / (spread + noise**2) if noise else 1.0
        remaining = to_state(trust * remaining)
        return torch.add(image, remaining if change is None else change + remaining, alpha=weight)

    return estimate

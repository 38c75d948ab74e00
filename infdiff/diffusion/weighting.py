"""Loss weights: functions of the signal-to-noise ratio (B,), for the error of what a network predicts.

That error weighs alike at all times with `uniform`, which is the choice of ∞-Diff (Eq. 42) and of EDM, whose lambda
(`EDM.loss_weight`) makes an error of the image one of the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]


def uniform(snr: Tensor) -> Tensor:
    """Return 1 at every time."""
    return torch.ones_like(snr)


def min_snr(target: str, gamma: float = 5.0) -> Weighting:
    """Min-SNR-gamma (Hang et al. 2023, section 3.4): errors of the image weigh min(SNR, gamma).

    target: what the network predicts, one of `IMAGE_ERROR`. Raises ValueError for an unknown one.
    """
    if target not in IMAGE_ERROR:
        raise ValueError(f"unknown target {target!r}: choose one of {', '.join(IMAGE_ERROR)}")
    image_error = IMAGE_ERROR[target]
    return lambda snr: snr.clamp(max=gamma) * image_error(snr)


# Squared error of the image, in units of its variance, for one of 1 in the target.
IMAGE_ERROR: dict[str, Weighting] = {
    "image": uniform,
    "noise": lambda snr: 1 / snr,
    "mollified_noise": lambda snr: 1 / snr,
    "v": lambda snr: 1 / (1 + snr),
}

# By name, for a network that predicts a target.
WEIGHTINGS: dict[str, Callable[[str], Weighting]] = {"uniform": lambda target: uniform, "min_snr": min_snr}

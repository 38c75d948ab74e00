"""The shapes that processes, networks and samplers have in common.

A process mixes data with noise to states, at times t (integers) or noise levels sigma (floats); its denoiser turns a
network's prediction into an estimate of the data, which is all that samplers see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from infdiff.coordinates import Size

# An integer time, or a noise level.
Time = TypeVar("Time")
Time_contra = TypeVar("Time_contra", contravariant=True)

# (scaled states, what tells their times (B,)) -> a prediction of the states' shape.
Network = Callable[[Tensor, Tensor], Tensor]
# (states, time) -> an estimate of the data.
Denoiser = Callable[[Tensor, Time], Tensor]
# () -> fresh noise, shaped like the states.
Noise = Callable[[], Tensor]
# (denoiser, first, noise) -> clean data. first() returns the noise to begin with; it is called where a sampler is, so
# that nothing but the sampler holds it: it is as large as the data.
Sample = Callable[[Denoiser[Time], Noise, Noise], Tensor]


class PointNetwork(Protocol):
    """A network on points; `geometry` precomputes what depends on the points alone."""

    def geometry(self, ids: Tensor, size: Size) -> Any: ...

    def __call__(self, x: Tensor, geometry: Any, *condition: Any) -> Tensor: ...


class Process(Protocol[Time_contra]):
    """A way from data to noise. Batches of times are tensors (B,)."""

    def state(self, clean: Tensor, noise: Tensor, t: Tensor, /) -> Tensor:
        """The mixture of clean data and noise at times t."""

    def snr(self, t: Tensor, /) -> Tensor:
        """(B,): variance of the signal over that of the noise, for data of the expected variance."""

    def denoiser(self, network: Network, /) -> Denoiser[Time_contra]:
        """The network as a function of states and one time, with estimates of the clean data as its values."""


class ImageProcess(Process[Time_contra], Protocol[Time_contra]):
    """A process of images (B, C, H, W) of any size."""

    def clean(self, image: Tensor, /) -> Tensor:
        """The clean end of the process: the image, or T of it."""

    def noise(self, batch: int, channels: int, size: Size, generators: list[torch.Generator], /) -> Tensor:
        """(batch, channels, H, W) float32; image i from generators[i], or all from one generator."""

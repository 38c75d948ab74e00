"""Conditions as the networks of a configuration take them."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.config.settings import Config


def known_channels(config: Config) -> int:
    """Return the channels of a denoiser's input beyond the images': those that are known, and one that says where."""
    known = config.data.condition_channels
    return known + 1 if known else 0


def condition_inputs(
    config: Config, x: Tensor, t: Tensor, labels: Tensor | None, known: Tensor | None
) -> tuple[Tensor, ...]:
    """Return what the network of a run is called with on images x (B, C, H, W) at times (B,): always the same tensors.

    Conditions that the run has and that are not given are zeros, which say nothing, so that a call can be recorded.
    """
    if extra := known_channels(config):
        known = x.new_zeros(x.shape[0], extra, *x.shape[2:]) if known is None else known.to(x)
        x = torch.cat([x, known], dim=1)
    if not (dim := config.label_dim):
        return x, t
    return x, t, t.new_zeros(x.shape[0], dim, dtype=torch.float32) if labels is None else labels

"""Pixels of each image in order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.registration import operator

# Measured on one CPU core, batch 4: from this many ids on, at fewer than this many pixels for each, to mark them in an
# image of all pixels takes less time than to sort them.
_MARKED_IDS, _PIXELS_A_POINT = 1 << 13, 32


def ascending_pixels_ref(ids: Tensor, size: Size) -> Tensor:
    """The specification of `ascending_pixels`: same arguments and result."""
    return ids.sort(dim=1).values


def ascending_pixels(ids: Tensor, size: Size) -> Tensor:
    """Sort the ids (B, L) of each image, which do not repeat."""
    few = ids.numel() < _MARKED_IDS or size[0] * size[1] >= _PIXELS_A_POINT * ids.shape[1]
    if ids.device.type != "cpu" or few:
        return ascending_pixels_ref(ids, size)
    result: Tensor = _marked_pixels(ids, size[0] * size[1])
    return result


@operator("marked_pixels")
def _marked_pixels(ids: Tensor, pixels: int) -> Tensor:
    start = np.arange(len(ids))[:, None] * pixels
    marked = np.zeros(len(ids) * pixels, dtype=bool)
    marked[ids.numpy() + start] = True
    return torch.from_numpy(np.flatnonzero(marked).reshape(ids.shape) - start)


_marked_pixels.register_fake(lambda ids, pixels: torch.empty_like(ids))

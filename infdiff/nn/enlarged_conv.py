"""A convolution of a grid that was enlarged by repeating its cells, computed on the small grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size

# Cells of an image's small grid from which sums of weights take less time than they save, on a CPU at batch 1, too.
_LEAST_CELLS = 256


def conv_of_enlarged(x: Tensor, weight: Tensor, bias: Tensor | None, size: Size) -> Tensor:
    """Enlarge x (B, C, H, W) to `size` by nearest neighbour, and convolve it with weight (D, C, 3, 3), padded by 1.

    To twice the size it is one transposed convolution of x: the taps of a pixel reach 2 x 2 cells of x, so that 4
    multiply-adds do what took 9, and the enlarged grid is never stored. Taps are added in the type of x.
    """
    height, width = x.shape[2:]
    if size == (2 * height, 2 * width) and height * width >= _LEAST_CELLS:
        # Autocast would cast the sums; cast before, they are the same numbers as those of weights in bfloat16.
        return F.conv_transpose2d(x, _sums(weight.to(x.dtype)), bias, stride=2, padding=1)
    return F.conv2d(F.interpolate(x, size=size, mode="nearest"), weight, bias, padding=1)


def _sums(weight: Tensor) -> Tensor:
    """Taps (C, D, 4, 4) of the transposed convolution: what a cell adds to its 2 x 2 pixels and those around them."""
    taps = weight.transpose(0, 1)
    for side in (2, 3):
        before, centre, after = taps.unbind(side)
        taps = torch.stack([after, centre + after, before + centre, before], dim=side)
    return taps

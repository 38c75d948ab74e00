"""Sparse integral operator (∞-Diff Eq. 16) on pixel subsets, normalised by the points present.

    out(c) = k^2 * sum_y kappa(y - c) v(y) / sum_y chi(y - c)        over the points y present

kappa is the tent interpolant of the k x k taps (ops/kernel.py), chi the same with every tap 1. Taps are in
`conv2d`'s order: tap (i, j) multiplies the pixel at offset (i - (k-1)/2, j - (k-1)/2). Taps of shape (C, 1, k, k)
are depthwise, (O, C, k, k) regular.

Two routes give the same numbers: "lattice" visits the window of every point through the lattice index, at a cost
of L * window; "dense" convolves the zero-filled image, at a cost of H * W * k^2 whatever the scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from infdiff.grid import Size
from infdiff.ops.kernel import kernel_reach, resize_kernel, tent_matrix
from infdiff.ops.lattice import lattice_index
from infdiff.ops.rows import gather_rows, scatter_rows

ROUTES = ("auto", "lattice", "dense")

# Measured on 2 CPU cores, 64 channels, 7 x 7, forward and backward: the lattice route costs about as much for each
# point as the dense route does for 32 pixels.
_DENSE_ABOVE_DENSITY = 1 / 32
# Above this many taps an enlarged kernel is applied in its separable tent form instead.
_MAX_DIRECT_TAPS = 225


def sparse_conv2d_ref(
    features: Tensor, taps: Tensor, ids: Tensor, size: Size, scale: tuple[float, float], index: Tensor | None = None
) -> Tensor:
    """The specification of `sparse_conv2d`, written out tap by tap over the lattice index.

    features (B, L, C), taps (C, 1, k, k) or (O, C, k, k), ids (B, L), scale: pixels per base pixel for (rows, columns).
    Any device and floating dtype. Returns (B, L, C) or (B, L, O).
    """
    taps, k = _check(features, taps, ids, size), taps.shape[-1]
    index = lattice_index(ids, size) if index is None else index
    total: Tensor | None = None
    count = features.new_zeros(*ids.shape, 1)
    kappa, chi = resize_kernel(taps, scale), resize_kernel(torch.ones_like(taps[0, 0]), scale)
    reach = kappa.shape[-2] // 2, kappa.shape[-1] // 2
    for dy in range(-reach[0], reach[0] + 1):
        for dx in range(-reach[1], reach[1] + 1):
            number = _neighbour_number(index, ids, size, dy, dx)
            present = (number >= 0).unsqueeze(-1)
            value = _take_rows(features, number.clamp(min=0)) * present
            weight = kappa[:, :, dy + reach[0], dx + reach[1]]
            term = value * weight[:, 0] if _is_depthwise(taps) else value @ weight.mT
            total = term if total is None else total + term
            count = count + present * chi[dy + reach[0], dx + reach[1]]
    assert total is not None
    return k * k * total / count


def inverse_count(
    ids: Tensor, size: Size, kernel_size: int, scale: tuple[float, float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """k^2 / sum chi at every point: (B, L, 1), or (1, L, 1) when all pixels are present.

    Depends on the coordinates alone, so one result serves every block with this kernel size.
    """
    rows, columns = (tent_matrix(kernel_size, s, device=ids.device).sum(dim=1) for s in scale)
    if ids.shape[1] == size[0] * size[1]:
        ones = [torch.ones(1, 1, n, dtype=torch.float64, device=ids.device) for n in size]
        high, wide = (
            F.conv1d(o, w.view(1, 1, -1), padding="same").view(-1) for o, w in zip(ones, (rows, columns), strict=True)
        )
        count = (high[:, None] * wide).view(1, -1, 1)
    else:
        mask = torch.zeros(ids.shape[0], size[0] * size[1], dtype=torch.float64, device=ids.device)
        image = mask.scatter_(1, ids, 1.0).view(-1, 1, *size)
        image = F.conv2d(image, rows.view(1, 1, -1, 1), padding="same")
        image = F.conv2d(image, columns.view(1, 1, 1, -1), padding="same")
        count = image.flatten(1).gather(1, ids).unsqueeze(-1)
    return (kernel_size**2 / count).to(dtype)


def sparse_conv2d(
    features: Tensor,
    taps: Tensor,
    ids: Tensor,
    size: Size,
    scale: tuple[float, float],
    inverse: Tensor | None = None,
    route: str = "auto",
) -> Tensor:
    """Sparse depthwise or regular convolution; arguments and result as `sparse_conv2d_ref`.

    inverse: the result of `inverse_count`, when several calls share it. route: "auto" | "lattice" | "dense".
    Raises ValueError naming the argument that does not fit.
    """
    taps = _check(features, taps, ids, size)
    if route not in ROUTES:
        raise ValueError(f"route={route!r}: choose one of {', '.join(ROUTES)}")
    pixels = size[0] * size[1]
    if route == "auto":
        route = "dense" if ids.shape[1] >= _DENSE_ABOVE_DENSITY * pixels else "lattice"
    if route == "lattice":
        return sparse_conv2d_ref(features, taps, ids, size, scale)
    if inverse is None:
        inverse = inverse_count(ids, size, taps.shape[-1], scale, features.dtype)
    everywhere = ids.shape[1] == pixels
    rows = features if everywhere else scatter_rows(features, ids, pixels)
    image = rearrange(rows, "b (h w) c -> b c h w", h=size[0])
    image = tent_conv2d(image, taps, scale)
    rows = rearrange(image, "b c h w -> b (h w) c")
    rows = rows if everywhere else gather_rows(rows, ids)
    # In the inverse's precision: bfloat16 would round the count.
    return (rows * inverse).to(rows.dtype) if rows.requires_grad else rows.mul_(inverse)


def tent_conv2d(image: Tensor, taps: Tensor, scale: tuple[float, float]) -> Tensor:
    """sum_y kappa(y - c) v(y) on a whole image (B, C, H, W), zero outside it; never costs (scale * k)^2 taps.

    On a whole-number scale s kappa is a tent filter followed by the taps at dilation s; on any other it is, for
    each of the k rows of taps, a filter along the row and a tent filter along the column.
    """
    k = taps.shape[-1]
    groups = image.shape[1] if _is_depthwise(taps) else 1
    lengths = [2 * kernel_reach(k, s) + 1 for s in scale]
    if lengths[0] * lengths[1] <= _MAX_DIRECT_TAPS:
        return F.conv2d(image, resize_kernel(taps, scale), padding="same", groups=groups)
    steps = [round(s) for s in scale]
    if (float(steps[0]), float(steps[1])) == tuple(scale):
        return _tent_then_dilated(image, taps, steps, groups)
    return _column_by_column(image, taps, scale, groups)


def _tent_then_dilated(image: Tensor, taps: Tensor, steps: list[int], groups: int) -> Tensor:
    """kappa on a whole-number scale: tent(n / s) along rows and columns, then the taps s pixels apart.

    The dilated convolution runs as an ordinary one of each of the s^2 sub-lattices: libraries do that far faster than a
    dilated depthwise convolution of one large image.
    """
    height, width = image.shape[2:]
    batch, channels = image.shape[:2]
    for axis, step in enumerate(steps):
        weight = tent_matrix(1, float(step), dtype=image.dtype, device=image.device)
        shape, padding = [1, 1, 1, 1], [0, 0]
        shape[2 + axis] = -1
        # The filter spreads the image up to a step past its border, where the outer taps still read it.
        padding[axis] = step - 1 + step
        image = F.conv2d(image, weight.view(shape).expand(channels, -1, -1, -1), padding=padding, groups=channels)
    image = F.pad(image, (0, -width % steps[1], 0, -height % steps[0]))
    image = rearrange(image, "b c (h p) (w q) -> (b p q) h w c", p=steps[0], q=steps[1]).permute(0, 3, 1, 2)
    image = F.conv2d(image, taps, padding="same", groups=groups)[:, :, 1:-1, 1:-1]
    image = rearrange(image, "(b p q) c h w -> b (h p) (w q) c", b=batch, p=steps[0], q=steps[1])
    return image[:, :height, :width].permute(0, 3, 1, 2)


def _column_by_column(image: Tensor, taps: Tensor, scale: tuple[float, float], groups: int) -> Tensor:
    """kappa on any scale: for each row i of taps, the interpolated row, then tent(n / s - i') along the column."""
    tents = tent_matrix(taps.shape[-2], scale[0], dtype=taps.dtype, device=taps.device)
    across = taps @ tent_matrix(taps.shape[-1], scale[1], dtype=taps.dtype, device=taps.device).mT
    total: Tensor | None = None
    for i in range(taps.shape[-2]):
        term = F.conv2d(image, across[:, :, i : i + 1], padding="same", groups=groups)
        down = tents[:, i].view(1, 1, -1, 1).expand(term.shape[1], -1, -1, -1)
        term = F.conv2d(term, down, padding="same", groups=term.shape[1])
        total = term if total is None else total + term
    assert total is not None
    return total


def _is_depthwise(taps: Tensor) -> bool:
    return taps.shape[1] == 1


def _neighbour_number(index: Tensor, ids: Tensor, size: Size, dy: int, dx: int) -> Tensor:
    """(B, L): the number of the point at offset (dy, dx) from each point, -1 where there is none."""
    row = torch.div(ids, size[1], rounding_mode="floor") + dy
    column = ids % size[1] + dx
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    place = (row * size[1] + column).where(inside, 0)
    return index.flatten(1).gather(1, place).long().where(inside, -1)


def _take_rows(features: Tensor, number: Tensor) -> Tensor:
    return features.gather(1, number.unsqueeze(-1).expand(-1, -1, features.shape[2]))


def _check(features: Tensor, taps: Tensor, ids: Tensor, size: Size) -> Tensor:
    """The taps in the features' dtype, or ValueError naming the argument that does not fit."""
    if features.dim() != 3 or features.shape[:2] != ids.shape:
        raise ValueError(f"features {tuple(features.shape)} do not go with ids {tuple(ids.shape)}: want (B, L, C)")
    if taps.dim() != 4 or taps.shape[-1] != taps.shape[-2] or taps.shape[-1] % 2 == 0:
        raise ValueError(f"taps {tuple(taps.shape)}: want (C, 1, k, k) or (O, C, k, k) with k odd")
    channels = features.shape[2]
    if taps.shape[1] != channels and not (_is_depthwise(taps) and taps.shape[0] == channels):
        raise ValueError(f"taps {tuple(taps.shape)} do not go with {channels} channels")
    if not 1 <= ids.shape[1] <= size[0] * size[1]:
        raise ValueError(f"ids hold {ids.shape[1]} points of an image of {size[0]}x{size[1]}")
    return taps.to(features.dtype)

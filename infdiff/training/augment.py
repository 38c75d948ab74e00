"""EDM's augmentation of training images (Karras et al. 2022, appendix F.2), and the labels that keep it out of samples.

An image is flipped, scaled, rotated, stretched and moved, each with some probability, and the network is told how. At
sampling the label is zero, which asks for images as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.dct import resample
from infdiff.precision import without_autocast

# Entries of a label.
LABELS = 9
# Odd, so that the finer grid has the image's own points, and what moves by pixels is exact.
_FINER = 3
# Scalings and stretches are by this to the power of a normal number; translations have this std, in sides of the image.
_FACTOR, _TRANSLATION = 2**0.2, 1 / 8


def augment(images: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W), each transformed at random, and their labels (B, LABELS), float32.

    Each transformation is applied with `probability`, but for the flip of columns, which half of the images have.
    generator: on the images' device. An image that nothing was applied to keeps its values and has the label 0.
    """
    parameters = draw_parameters(images.shape[0], probability, generator)
    return transform(images, parameters), labels_of(parameters)


def draw_parameters(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """Return a_0 to a_7 (B, 8), float32; those of a transformation that is not applied are 0.

    a_0, a_1: 1 for reversed columns, rows. a_2: of the scaling. a_3: angle of rotation. a_4, a_5: angle and strength of
    the stretch. a_6, a_7: of the translation, across and down.
    """
    device = generator.device
    flips = (torch.rand(batch, 2, device=device, generator=generator) < 0.5).float()
    angles = math.pi * (2 * torch.rand(batch, 2, device=device, generator=generator) - 1)
    normal = torch.randn(batch, 4, device=device, generator=generator)
    drawn = [flips, normal[:, :1], angles, normal[:, 1:]]
    applied = (torch.rand(batch, 5, device=device, generator=generator) < probability).float()
    rows, scaled, rotated, stretched, moved = applied.unbind(1)
    columns = torch.ones_like(rows)  # always drawn
    mask = torch.stack([columns, rows, scaled, rotated, stretched, stretched, moved, moved], dim=1)
    return mask * torch.cat(drawn, dim=1)


def labels_of(parameters: Tensor) -> Tensor:
    """Return the labels (B, LABELS) of parameters (B, 8): 0 where nothing is applied, and alike for like images."""
    columns, rows, scale, turn, axis, stretch, across, down = parameters.unbind(1)
    entries = [columns, rows, scale, turn.cos() - 1, turn.sin(), stretch * axis.cos(), stretch * axis.sin()]
    return torch.stack([*entries, across, down], dim=1)


def transform(images: Tensor, parameters: Tensor) -> Tensor:
    """Return images (B, C, H, W) flipped, scaled, rotated, stretched and moved, in this order, by parameters (B, 8).

    Flips are exact; the others, where there are any, are one interpolation of the image reflected at its edges:
    bilinear on a finer grid of its cosine series, so that it does not blur.
    """
    columns, rows = (parameters[:, i].view(-1, 1, 1, 1) > 0 for i in (0, 1))
    images = torch.where(columns, images.flip(3), images)
    images = torch.where(rows, images.flip(2), images)
    with without_autocast(images.device):  # bfloat16 would round coordinates to a pixel or so
        places = _sources(parameters.to(images.dtype), (images.shape[2], images.shape[3]))
        fine = resample(images, (_FINER * images.shape[2], _FINER * images.shape[3]))
        moved = F.grid_sample(fine, places, mode="bilinear", padding_mode="reflection", align_corners=False)
    return torch.where((parameters[:, 2:] != 0).any(dim=1).view(-1, 1, 1, 1), moved, images)


def _sources(parameters: Tensor, size: Size) -> Tensor:
    """Return the place that each pixel reads: (B, H, W, 2), (x, y) in [-1, 1], as `grid_sample` takes them."""
    _, _, scale, turn, axis, stretch, across, down = parameters.unbind(1)
    height, width = size
    x, y = (torch.arange(n, device=scale.device, dtype=scale.dtype) - (n - 1) / 2 for n in (width, height))
    # Offsets from the centre in pixels, (B, H, W, 2): moved back, squeezed, turned back, scaled back.
    x = x - _TRANSLATION * width * across[:, None]
    y = y - _TRANSLATION * height * down[:, None]
    places = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    factor = _FACTOR**stretch
    squeeze = torch.diag_embed(torch.stack([1 / factor, factor], dim=1))
    linear = _FACTOR ** -scale[:, None, None] * _rotation(turn) @ _rotation(axis) @ squeeze @ _rotation(-axis)
    places = (places.flatten(1, 2) @ linear.mT).view_as(places)
    return torch.stack([places[..., 0] * (2 / width), places[..., 1] * (2 / height)], dim=-1)


def _rotation(angle: Tensor) -> Tensor:
    """(B, 2, 2) matrices that turn (x, y) from x to y by angles (B,)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)

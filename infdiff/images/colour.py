"""Pictures of fields: a colour map for each channel, and a bar that says which value has which colour."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOUR_MAP = "viridis"
_MISSING = (190, 190, 190)
# Pixels of a panel's shorter side, at least; of the bar, of the space around it and of its figures.
_SHORTEST, _BAR, _GAP, _FIGURES = 128, 12, 4, 76
_TITLE = 14

Limits = Sequence[tuple[float, float]]


def coloured(images: Tensor, limits: Limits) -> Tensor:
    """Return fields (B, C, H, W) as pictures (B, 3, H', W') uint8, missing pixels (NaN) grey.

    limits: the values of each channel, or of all, at the ends of the colours. Three channels are red, green and blue;
    others are panels from left to right.
    """
    low, high = torch.tensor(_each(limits, images.shape[1])).to(images).view(-1, 2, 1, 1).unbind(1)
    part = ((images - low) / (high - low)).clamp(0, 1)
    if images.shape[1] == 3:
        grey = torch.tensor(_MISSING, device=images.device).view(3, 1, 1) / 255
        return (torch.where(part.isnan(), grey, part) * 255).round().to(torch.uint8)
    places = (part.nan_to_num(0) * 255).round().long()
    panels = _colours().to(images.device)[places]  # (B, C, H, W, 3)
    grey = torch.tensor(_MISSING, dtype=torch.uint8, device=images.device)
    panels = torch.where(part.isnan()[..., None], grey, panels)
    return torch.cat(panels.unbind(1), dim=2).permute(0, 3, 1, 2).contiguous()


def picture(field: Tensor, limits: Limits, labels: Sequence[str]) -> Tensor:
    """Return a field (C, H, W) as a picture (3, H', W') uint8: a panel, a colour bar and a label for each channel.

    Pixels are enlarged by a whole number where there are few. Three channels are one panel in red, green and blue,
    without a bar.
    """
    channels, height, width = field.shape
    factor = max(1, -(-_SHORTEST // min(height, width)))
    if channels == 3:
        return _enlarged(coloured(field[None], limits)[0], factor)
    pairs = zip(field, _each(limits, channels), labels, strict=True)
    return torch.cat([_panel(plane, ends, label, factor) for plane, ends, label in pairs], dim=2)


def _panel(plane: Tensor, ends: tuple[float, float], label: str, factor: int) -> Tensor:
    pixels = _enlarged(coloured(plane[None, None].cpu(), [ends])[0], factor).permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    image = Image.new("RGB", (width + _GAP + _BAR + _FIGURES, height + _TITLE), "white")
    image.paste(Image.fromarray(pixels), (0, _TITLE))
    places = torch.linspace(255, 0, height).round().long()
    bar = _colours()[places][:, None].expand(-1, _BAR, -1).contiguous().numpy()
    image.paste(Image.fromarray(bar), (width + _GAP, _TITLE))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    draw.text((0, 1), label, fill="black", font=font)
    for part in (0.0, 0.5, 1.0):
        value = ends[1] + part * (ends[0] - ends[1])
        top = _TITLE + round(part * (height - 12))
        draw.text((width + 2 * _GAP + _BAR, top), f"{value:.5g}", fill="black", font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _enlarged(image: Tensor, factor: int) -> Tensor:
    return image.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2).cpu()


def _each(limits: Limits, channels: int) -> list[tuple[float, float]]:
    """A pair for each channel, none of them empty."""
    every = list(limits) * channels if len(limits) == 1 else list(limits)
    return [(low, high) if low < high else (low - 0.5, low + 0.5) for low, high in every]


@lru_cache(maxsize=1)
def _colours() -> Tensor:
    """(256, 3) uint8."""
    from matplotlib import colormaps  # takes a while to import, and RGB images do not need it

    return torch.from_numpy((colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8))

"""Tensors to PNG files and contact sheets."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def save_png(image: Tensor, path: Path) -> None:
    """(3, H, W) uint8 to a file that appears only when it is whole."""
    temporary = path.with_name(f".{path.name}.partial")
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(temporary, "PNG")
    temporary.replace(path)


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """(N, 3, H, W) uint8 -> one picture, `columns` wide, on white."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for i, image in enumerate(images.cpu()):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet

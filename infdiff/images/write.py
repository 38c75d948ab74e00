"""Write tensors as PNG files, animations and contact sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from infdiff.files import make_folder, save_json, whole_file


def save_png(image: Tensor, path: Path) -> None:
    """Write an image (3, H, W) uint8 as a PNG file, atomically."""
    with whole_file(path) as partial:
        Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(partial, "PNG")


def save_gif(images: Tensor, path: Path, milliseconds: int = 80) -> None:
    """Write images (N, 3, H, W) uint8 as a GIF that loops forwards and backwards, atomically."""
    frames = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
    frames += frames[-2:0:-1]
    with whole_file(path) as partial:
        frames[0].save(partial, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


def save_with_record(image: Tensor, path: Path, record: dict[str, Any]) -> None:
    """Write an image (3, H, W) uint8 as a PNG file, and a JSON file of the same name that says what made it.

    Raises UserError when they cannot be written.
    """
    make_folder(path.parent)
    save_png(image, path)
    save_json(path.with_suffix(".json"), record)


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Arrange images (N, 3, H, W) uint8 in rows of `columns`, on white: one image (3, H', W')."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for i, image in enumerate(images.cpu()):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet

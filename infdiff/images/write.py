"""Tensors to PNG files and contact sheets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from infdiff.errors import UserError


def save_png(image: Tensor, path: Path) -> None:
    """(3, H, W) uint8 to a file that appears only when it is whole."""
    temporary = path.with_name(f".{path.name}.partial")
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(temporary, "PNG")
    temporary.replace(path)


def save_gif(images: Tensor, path: Path, milliseconds: int = 80) -> None:
    """(N, 3, H, W) uint8 to a GIF that goes there and back for ever; the file appears only when it is whole."""
    frames = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
    frames += frames[-2:0:-1]
    temporary = path.with_name(f".{path.name}.partial")
    frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    temporary.replace(path)


def save_with_record(image: Tensor, path: Path, record: dict[str, Any]) -> None:
    """(3, H, W) uint8 to a PNG file, and to a JSON file beside it how it was made. Raises UserError if it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(image, path)
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """(N, 3, H, W) uint8 -> one picture, `columns` wide, on white."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for i, image in enumerate(images.cpu()):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet

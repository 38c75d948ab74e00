"""A folder of generated images: one PNG each, a contact sheet, and a JSON file saying what made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.errors import UserError
from infdiff.images.write import contact_sheet, save_gif, save_png

SHEET = "grid.png"


def sample_to_folder(
    sample: Callable[[Sequence[int]], Tensor], folder: Path, *, count: int, batch: int, record: dict[str, Any]
) -> Path:
    """Write images 0..count-1, `batch` at a time, and return the contact sheet's path.

    sample(indices) gives (B, 3, H, W) uint8. Every file appears only when it is whole; the JSON comes last.
    Raises UserError when the folder cannot be written.
    """
    images = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for indices in torch.arange(count).split(batch):
            for index, image in zip(indices.tolist(), sample(indices.tolist()), strict=True):
                save_png(image, folder / f"{index:05d}.png")
                images.append(image)
        sheet = folder / SHEET
        save_png(contact_sheet(torch.stack(images), columns=_columns(count)), sheet)
        (folder / "samples.json").write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return sheet


def frames_to_folder(frames: Tensor, folder: Path, record: dict[str, Any]) -> Path:
    """Write frames (N, 3, H, W) uint8 as PNG files, a contact sheet, frames.gif and a JSON file; return the GIF's path.

    Raises UserError when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames):
            save_png(frame, folder / f"{number:05d}.png")
        save_png(contact_sheet(frames, columns=min(8, len(frames))), folder / SHEET)
        save_gif(frames, folder / "frames.gif")
        (folder / "samples.json").write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder / "frames.gif"


def _columns(count: int) -> int:
    """A sheet wider than it is high."""
    return next(n for n in range(1, count + 1) if n * n >= count)

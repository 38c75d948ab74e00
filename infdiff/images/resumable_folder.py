"""A folder of numbered images that several calls and several processes fill together."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.files import make_folder, save_text
from infdiff.images.pixels import to_uint8
from infdiff.images.write import save_png

_SETTINGS = "settings.json"

# Writes a finite image (C, H, W) float to a path, in files of its own kind.
SaveImage = Callable[[Tensor, Path], None]


def save_rounded(image: Tensor, path: Path) -> None:
    """Write an image (3, H, W) in [-1, 1] as a PNG file."""
    save_png(to_uint8(image), path)


def open_folder(parent: Path, settings: dict[str, Any]) -> Path:
    """Return the folder in `parent` of images made with exactly these settings; an earlier call may have filled it.

    Raises UserError when it cannot be written.
    """
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    name = f"{settings['task']}-{settings['size']}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
    folder = make_folder(parent / name)
    save_text(folder / _SETTINGS, text)
    return folder


def fill_folder(
    make: Callable[[Sequence[int]], Tensor],
    folder: Path,
    *,
    indices: Sequence[int],
    batch: int,
    on_images: Callable[[int], object] = lambda count: None,
    suffix: str = ".png",
    save: SaveImage = save_rounded,
) -> None:
    """Make the missing images, `batch` at a time.

    make(numbers) returns float images (B, C, H, W), which `save` writes as NUMBER and the suffix. Images with
    non-finite pixels are recorded as an empty NUMBER.broken. on_images(n) is called as images complete, including those
    found from an earlier call. Raises UserError when the folder cannot be written.
    """
    missing = [i for i in indices if not (_image(folder, i, suffix).exists() or _mark(folder, i).exists())]
    on_images(len(indices) - len(missing))
    for start in range(0, len(missing), batch):
        numbers = missing[start : start + batch]
        images = make(numbers)
        finite = torch.isfinite(images).flatten(1).all(dim=1).tolist()
        for number, image, good in zip(numbers, images, finite, strict=True):
            if good:
                save(image, _image(folder, number, suffix))
            else:
                save_text(_mark(folder, number), "")
        on_images(len(numbers))


def filled(folder: Path, count: int, *, suffix: str = ".png", wait: float = 1.0) -> tuple[list[int], list[int]]:
    """Return the numbers below `count` of finite and of broken images; wait until other processes made all of them."""
    while True:
        finite = [i for i in range(count) if _image(folder, i, suffix).exists()]
        broken = [i for i in range(count) if _mark(folder, i).exists()]
        if len(finite) + len(broken) >= count:
            return finite, broken
        time.sleep(wait)


def image_names(numbers: Sequence[int], suffix: str = ".png") -> tuple[str, ...]:
    """File names of images by their numbers."""
    return tuple(_image(Path(), number, suffix).name for number in numbers)


def _image(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"{number:06d}{suffix}"


def _mark(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.broken"

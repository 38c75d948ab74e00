"""A folder of numbered images that several calls and several processes fill together."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.errors import UserError
from infdiff.images.pixels import to_uint8
from infdiff.images.write import save_png

_SETTINGS = "settings.json"


def open_folder(parent: Path, settings: dict[str, Any]) -> Path:
    """The folder in `parent` of images made with these settings, and no others; new, or as an earlier call left it.

    Raises UserError when it cannot be written.
    """
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    name = f"{settings['task']}-{settings['size']}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
    folder = parent / name
    partial = folder / f".{_SETTINGS}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(folder / _SETTINGS)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def fill_folder(
    make: Callable[[Sequence[int]], Tensor],
    folder: Path,
    *,
    indices: Sequence[int],
    batch: int,
    on_images: Callable[[int], object] = lambda count: None,
) -> None:
    """Make the images that are not there yet, `batch` at a time.

    make(numbers) gives float images (B, 3, H, W) in [-1, 1]. One whose pixels are not all finite is no image: an empty
    file NUMBER.broken says so. on_images(n) is told of every n that are done, also by an earlier call. Raises UserError
    when the folder cannot be written.
    """
    missing = [i for i in indices if not (_image(folder, i).exists() or _mark(folder, i).exists())]
    on_images(len(indices) - len(missing))
    for start in range(0, len(missing), batch):
        numbers = missing[start : start + batch]
        images = make(numbers)
        whole = torch.isfinite(images).flatten(1).all(dim=1).tolist()
        try:
            for number, image, good in zip(numbers, images, whole, strict=True):
                if good:
                    save_png(to_uint8(image), _image(folder, number))
                else:
                    _mark(folder, number).touch()
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
        on_images(len(numbers))


def filled(folder: Path, count: int, *, wait: float = 1.0) -> tuple[list[int], list[int]]:
    """The numbers below `count` of whole and of broken images; waits until other processes have made all of them."""
    while True:
        whole = [i for i in range(count) if _image(folder, i).exists()]
        broken = [i for i in range(count) if _mark(folder, i).exists()]
        if len(whole) + len(broken) >= count:
            return whole, broken
        time.sleep(wait)


def image_names(numbers: Sequence[int]) -> tuple[str, ...]:
    """File names of images by their numbers."""
    return tuple(_image(Path(), number).name for number in numbers)


def _image(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.png"


def _mark(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.broken"

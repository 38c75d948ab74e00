"""Reading what a user gives: a picture in any mode, a mask. Everything that cannot work is one line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.errors import UserError, first_line
from infdiff.images.transforms import crop_to_aspect, resize, to_rgb


def read_picture(option: str, path: Path) -> Tensor:
    """(1, 3, H, W) uint8 of an image file; alpha is laid over white, CMYK and greys are converted.

    Raises UserError naming the option and the file.
    """
    return torch.from_numpy(np.array(_read_rgb(option, path))).permute(2, 0, 1)[None].contiguous()


def read_pictures_at(option: str, paths: Sequence[Path], size: Size) -> Tensor:
    """(N, 3, H, W) uint8 of image files, cropped to the aspect ratio of `size` and resized to it."""
    pictures = [np.array(resize(crop_to_aspect(_read_rgb(option, path), size), size)) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def read_mask(path: Path, size: Size) -> Tensor:
    """(H, W) bool of an image file: true where it is white (lighter than the middle), which is to be filled.

    Raises UserError when it cannot be read, has another size than the picture, or nothing in it is white.
    """
    grey = np.array(_read_rgb("--mask", path).convert("L"))
    if grey.shape != size:
        raise UserError(f"--mask {path}: {format_size(grey.shape)} pixels, and the picture has {format_size(size)}")
    hidden = torch.from_numpy(grey > 127)
    if not hidden.any():
        raise UserError(f"--mask {path}: nothing in it is white, so there is nothing to fill")
    return hidden


def _read_rgb(option: str, path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{option} {path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{option} {path}: cannot be read as an image ({first_line(error)})") from error

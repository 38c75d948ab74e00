"""Read image files of any mode, and masks. Errors are a single line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError, first_line
from infdiff.images.transforms import crop_to_aspect, resize, to_rgb


def read_image(option: str, path: Path, content: bytes | None = None) -> Tensor:
    """Read an image file as (1, 3, H, W) uint8; alpha is composited over white, CMYK and grey are converted.

    content: of the file, where it is not on disk. Raises OptionError naming the option and the file.
    """
    return torch.from_numpy(np.array(_read_rgb(option, path, content))).permute(2, 0, 1)[None].contiguous()


def read_images_at(option: str, paths: Sequence[Path], size: Size) -> Tensor:
    """Read image files as (N, 3, H, W) uint8, cropped to the aspect ratio of `size` and resized to it."""
    images = [np.array(resize(crop_to_aspect(_read_rgb(option, path), size), size)) for path in paths]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def read_mask(path: Path, size: Size, content: bytes | None = None) -> Tensor:
    """Read the mask of an image of `size` from a file, as (H, W) bool: true where it is white, which is to be filled.

    content: as in `read_image`. Raises OptionError when it cannot be read, has another size, or nothing in it is white.
    """
    grey = np.array(_read_rgb("mask", path, content).convert("L"))
    if grey.shape != size:
        raise OptionError("mask", path, f"{format_size(grey.shape)} pixels, and the image has {format_size(size)}")
    hidden = torch.from_numpy(grey > 127)
    if not hidden.any():
        raise OptionError("mask", path, "nothing in it is white, so there is nothing to fill")
    return hidden


def _read_rgb(option: str, path: Path, content: bytes | None = None) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                return to_rgb(image)
    except FileNotFoundError:
        raise OptionError(option, path, "no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OptionError(option, path, f"cannot be read as an image ({first_line(error)})") from error

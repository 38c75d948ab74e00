"""Convert PIL images, numpy arrays and tensors to and from (N, 3, H, W) uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.images.transforms import to_rgb

FORMS = ("pil", "numpy", "tensor", "array")


def to_images(images: Any) -> Tensor:
    """Convert one image, or several of one size, to (N, 3, H, W) uint8.

    PIL images of any mode; numpy arrays (H, W, 3) or (N, H, W, 3); tensors (3, H, W) or (N, 3, H, W). Arrays and
    tensors are uint8, or floating-point in [0, 1]. Raises ValueError for anything else.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("no image given")
        parts = [to_images(np.array(to_rgb(i))) if isinstance(i, Image.Image) else to_images(i) for i in images]
        if len({part.shape[1:] for part in parts}) > 1:
            raise ValueError("images of several sizes: give them one by one")
        return torch.cat(parts)
    if isinstance(images, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        tensor = tensor.movedim(-1, -3) if tensor.dim() >= 3 else tensor
    elif isinstance(images, Tensor):
        tensor = images.detach().cpu()
    else:
        raise ValueError(f"{type(images).__name__} is no image: want PIL images, numpy arrays or tensors")
    if tensor.dim() == 3:
        tensor = tensor[None]
    if tensor.dim() != 4 or tensor.shape[1] != 3:
        shapes = "arrays (N, H, W, 3), tensors (N, 3, H, W)"
        raise ValueError(f"an image array of shape {tuple(images.shape)}: want three channels; {shapes}")
    if tensor.is_floating_point():
        if tensor.min() < 0 or tensor.max() > 1:
            raise ValueError("floating-point images: want values in [0, 1]")
        tensor = (tensor * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise ValueError(f"images of {tensor.dtype}: want uint8, or floating-point in [0, 1]")
    return tensor.contiguous()


def from_images(images: Tensor, form: str) -> list[Image.Image] | np.ndarray | Tensor:
    """Convert (N, 3, H, W) uint8 to a list of PIL images, an array (N, H, W, 3), the tensor itself, or as an array."""
    if form not in FORMS:
        raise ValueError(f"output={form!r}: choose one of {', '.join(FORMS)}")
    if form in ("tensor", "array"):
        return images if form == "tensor" else images.numpy()
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    return arrays if form == "numpy" else [Image.fromarray(array) for array in arrays]


def to_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    """Convert a PIL image (white), an array or a tensor (H, W) to (H, W) bool: true where to fill."""
    if isinstance(mask, Image.Image):
        mask = np.array(to_rgb(mask).convert("L")) > 127
    tensor = torch.as_tensor(mask)
    if tensor.dtype != torch.bool:
        tensor = tensor > (127 if tensor.dtype == torch.uint8 else 0.5)
    if tuple(tensor.shape) != size:
        raise ValueError(f"a mask of shape {tuple(tensor.shape)} for an image of {size[0]}x{size[1]}")
    if not tensor.any():
        raise ValueError("the mask selects nothing to fill")
    return tensor

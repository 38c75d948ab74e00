"""Convert images to RGB of a chosen size: modes, depth, orientation, alpha, cropping, antialiased resizing."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from infdiff.coordinates import Size

RESIZE_FILTER = "lanczos"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to upright 8-bit RGB. Alpha is composited over white; 16-bit grey is scaled, not clipped.

    Raises ValueError for floating-point images, whose range is unknown.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def size_of_crop(full: Size, size: Size) -> Size:
    """Return the size of the largest crop of an image of size `full` (H, W) with the aspect ratio of `size` (H, W)."""
    height, width = full
    return min(height, max(1, round(width * size[0] / size[1]))), min(width, max(1, round(height * size[1] / size[0])))


def crop_to_aspect(image: Image.Image, size: Size) -> Image.Image:
    """Return the largest centre crop with the aspect ratio of `size` (H, W)."""
    width, height = image.size
    crop_height, crop_width = size_of_crop((height, width), size)
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return image.crop((left, top, left + crop_width, top + crop_height))


def random_crop(image: Image.Image, size: Size, random: np.random.Generator, min_scale: float) -> Image.Image:
    """Return a random crop with the aspect ratio of `size`, scaled by min_scale to 1 relative to the largest crop."""
    width, height = image.size
    largest = crop_to_aspect(image, size)
    # Never below the wanted size where the image has the pixels.
    floor = min(1.0, max(min_scale, size[0] / largest.height, size[1] / largest.width))
    scale = random.uniform(floor, 1.0)
    crop_width, crop_height = max(1, round(largest.width * scale)), max(1, round(largest.height * scale))
    left = int(random.integers(0, width - crop_width + 1))
    top = int(random.integers(0, height - crop_height + 1))
    return image.crop((left, top, left + crop_width, top + crop_height))


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Resize to (H, W), antialiased."""
    if image.size == (size[1], size[0]):
        return image
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)

"""Convert images to RGB of a chosen size: modes, depth, orientation, alpha, cropping, antialiased resizing."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from infdiff.coordinates import Size

RESIZE_FILTER = "lanczos"

# Left, top, right, bottom, as Pillow takes them.
Box = tuple[int, int, int, int]


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


def centre_box(full: Size, size: Size) -> Box:
    """Return the largest centre crop of an image of size `full` (H, W) with the aspect ratio of `size` (H, W)."""
    height, width = size_of_crop(full, size)
    left, top = (full[1] - width) // 2, (full[0] - height) // 2
    return left, top, left + width, top + height


def random_box(full: Size, size: Size, random: np.random.Generator, min_scale: float) -> Box:
    """Return a random crop with the aspect ratio of `size`, scaled by min_scale to 1 relative to the largest crop."""
    largest = size_of_crop(full, size)
    # Never below the wanted size where the image has the pixels.
    floor = min(1.0, max(min_scale, size[0] / largest[0], size[1] / largest[1]))
    scale = random.uniform(floor, 1.0)
    width, height = max(1, round(largest[1] * scale)), max(1, round(largest[0] * scale))
    left = int(random.integers(0, full[1] - width + 1))
    top = int(random.integers(0, full[0] - height + 1))
    return left, top, left + width, top + height


def crop_to_aspect(image: Image.Image, size: Size) -> Image.Image:
    """Return the largest centre crop with the aspect ratio of `size` (H, W)."""
    return image.crop(centre_box((image.height, image.width), size))


def random_crop(image: Image.Image, size: Size, random: np.random.Generator, min_scale: float) -> Image.Image:
    """Return the part of an image in a `random_box`."""
    return image.crop(random_box((image.height, image.width), size, random, min_scale))


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Resize to (H, W), antialiased."""
    if image.size == (size[1], size[0]):
        return image
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)

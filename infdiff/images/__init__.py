"""Pixel values in, out and converted; folders of images."""

from infdiff.images.convert import from_images, to_images, to_mask
from infdiff.images.pixels import from_uint8, to_uint8, to_values, valid_pixels
from infdiff.images.read import read_image, read_images_at, read_mask
from infdiff.images.resumable_folder import fill_folder, filled, open_folder
from infdiff.images.sample_folder import frames_to_folder, sample_to_folder
from infdiff.images.transforms import crop_to_aspect, random_crop, resize, to_rgb
from infdiff.images.write import contact_sheet, save_gif, save_png, save_with_record

__all__ = [
    "contact_sheet",
    "crop_to_aspect",
    "fill_folder",
    "filled",
    "frames_to_folder",
    "from_images",
    "from_uint8",
    "open_folder",
    "random_crop",
    "read_image",
    "read_images_at",
    "read_mask",
    "resize",
    "sample_to_folder",
    "save_gif",
    "save_png",
    "save_with_record",
    "to_images",
    "to_mask",
    "to_rgb",
    "to_uint8",
    "to_values",
    "valid_pixels",
]

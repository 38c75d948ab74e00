"""Tasks of a trained model: images from noise, larger ones, filled ones, and those between two."""

from infdiff.pipelines.generate import encode, generate, on_all_pixels
from infdiff.pipelines.inpaint import encode_visible, inpaint, paste
from infdiff.pipelines.interpolate import interpolate
from infdiff.pipelines.restore import Guidance, restore
from infdiff.pipelines.super_resolve import super_resolve

__all__ = [
    "Guidance",
    "encode",
    "encode_visible",
    "generate",
    "inpaint",
    "interpolate",
    "on_all_pixels",
    "paste",
    "restore",
    "super_resolve",
]

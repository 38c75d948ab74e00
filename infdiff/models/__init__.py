"""Networks: plain keyword arguments, tensors in, tensors out."""

from infdiff.models.dfu import DFU, DFUDown
from infdiff.models.grid_denoiser import GridDenoiser
from infdiff.models.grid_unet import GridDown, GridUNet
from infdiff.models.latent_mlp import LatentMLP
from infdiff.models.point_unet import PointDown, PointUNet
from infdiff.models.sparse_encoder import SparseEncoder
from infdiff.models.sparse_unet import SparseUNet
from infdiff.models.tiled import denoise_tiled, held_tiles
from infdiff.models.unet import GridNetwork, Levels, Trunk, UNet, UNetDown

__all__ = [
    "DFU",
    "DFUDown",
    "GridDenoiser",
    "GridDown",
    "GridNetwork",
    "GridUNet",
    "LatentMLP",
    "Levels",
    "PointDown",
    "PointUNet",
    "SparseEncoder",
    "SparseUNet",
    "Trunk",
    "UNet",
    "UNetDown",
    "denoise_tiled",
    "held_tiles",
]

"""Networks: plain keyword arguments, tensors in, tensors out."""

from infdiff.models.dfu import DFU
from infdiff.models.grid_denoiser import GridDenoiser
from infdiff.models.grid_unet import GridUNet
from infdiff.models.sparse_encoder import SparseEncoder
from infdiff.models.sparse_unet import SparseUNet

__all__ = ["DFU", "GridDenoiser", "GridUNet", "SparseEncoder", "SparseUNet"]

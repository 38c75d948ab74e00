"""Networks: plain keyword arguments, tensors in, tensors out."""

from infdiff.models.dfu import DFU, DFUDenoiser
from infdiff.models.grid_unet import GridUNet
from infdiff.models.sparse_encoder import SparseEncoder
from infdiff.models.sparse_unet import SparseUNet

__all__ = ["DFU", "DFUDenoiser", "GridUNet", "SparseEncoder", "SparseUNet"]

"""Building blocks, one concept a file."""

from infdiff.nn.attention import GridAttention
from infdiff.nn.conv_block import ConvBlock, Downsample, Upsample, conv
from infdiff.nn.embedding import Conditioning, PointLift, sinusoidal_embedding
from infdiff.nn.geometry import Geometry
from infdiff.nn.norm import GridLayerNorm, ModulatedLayerNorm
from infdiff.nn.resample import BilinearDownsample, BilinearUpsample
from infdiff.nn.sparse_block import SparseBlock, SparseConv
from infdiff.nn.spectral_conv import DualConv, SpectralConv2d
from infdiff.nn.standardize import Standardize

__all__ = [
    "BilinearDownsample",
    "BilinearUpsample",
    "Conditioning",
    "ConvBlock",
    "Downsample",
    "DualConv",
    "Geometry",
    "GridAttention",
    "GridLayerNorm",
    "ModulatedLayerNorm",
    "PointLift",
    "SparseBlock",
    "SparseConv",
    "SpectralConv2d",
    "Standardize",
    "Upsample",
    "conv",
    "sinusoidal_embedding",
]

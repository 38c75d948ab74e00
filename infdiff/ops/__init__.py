"""Operators on pixel subsets: the hot path. Knows nothing of diffusion, modules or configuration.

Each operator comes with `NAME_ref`, its specification: same arguments, plain PyTorch, any device and type.
"""

from infdiff.ops.grid_to_points import grid_to_points, grid_to_points_ref
from infdiff.ops.inverse_count import inverse_count, inverse_count_ref
from infdiff.ops.lattice_index import lattice_index, lattice_index_ref
from infdiff.ops.modulated_norm import (
    modulated_norm,
    modulated_norm_passing,
    modulated_norm_ref,
    modulated_norm_stepwise,
)
from infdiff.ops.nearest_points import Neighbours, nearest_points, nearest_points_ref
from infdiff.ops.permuted_pixels import permuted_pixels, permuted_pixels_ref
from infdiff.ops.point_set import Points
from infdiff.ops.points_to_grid import points_to_grid, points_to_grid_ref
from infdiff.ops.points_to_points import Sources, points_to_points, sources_of
from infdiff.ops.resize_kernel import resize_kernel, resize_kernel_ref, tent_matrix
from infdiff.ops.routing import BACKENDS
from infdiff.ops.sparse_conv2d import sparse_conv2d, sparse_conv2d_ref
from infdiff.ops.sparse_depthwise_conv2d import (
    sparse_depthwise_conv2d,
    sparse_depthwise_conv2d_passing,
    sparse_depthwise_conv2d_ref,
)
from infdiff.ops.tiles import GridFromTiles, conv2d_tile, rows_around
from infdiff.ops.torchsparse_backend import Voxels, neighbour_table

__all__ = [
    "BACKENDS",
    "GridFromTiles",
    "Neighbours",
    "Points",
    "Sources",
    "Voxels",
    "conv2d_tile",
    "grid_to_points",
    "grid_to_points_ref",
    "inverse_count",
    "inverse_count_ref",
    "lattice_index",
    "lattice_index_ref",
    "modulated_norm",
    "modulated_norm_passing",
    "modulated_norm_ref",
    "modulated_norm_stepwise",
    "nearest_points",
    "nearest_points_ref",
    "neighbour_table",
    "permuted_pixels",
    "permuted_pixels_ref",
    "points_to_grid",
    "points_to_grid_ref",
    "points_to_points",
    "resize_kernel",
    "resize_kernel_ref",
    "rows_around",
    "sources_of",
    "sparse_conv2d",
    "sparse_conv2d_ref",
    "sparse_depthwise_conv2d",
    "sparse_depthwise_conv2d_passing",
    "sparse_depthwise_conv2d_ref",
    "tent_matrix",
]

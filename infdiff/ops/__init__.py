"""Operators on pixel subsets: the hot path. Knows nothing of diffusion, modules or configuration."""

from infdiff.ops.grid_to_points import grid_to_points, grid_to_points_ref
from infdiff.ops.kernel import resize_kernel, tent_matrix
from infdiff.ops.lattice import lattice_index
from infdiff.ops.points_to_grid import Neighbours, nearest_points, nearest_points_ref, points_to_grid
from infdiff.ops.rows import gather_rows, scatter_rows, weighted_rows
from infdiff.ops.sparse_conv import inverse_count, sparse_conv2d, sparse_conv2d_ref

__all__ = [
    "Neighbours",
    "gather_rows",
    "grid_to_points",
    "grid_to_points_ref",
    "inverse_count",
    "lattice_index",
    "nearest_points",
    "nearest_points_ref",
    "points_to_grid",
    "resize_kernel",
    "scatter_rows",
    "sparse_conv2d",
    "sparse_conv2d_ref",
    "tent_matrix",
    "weighted_rows",
]

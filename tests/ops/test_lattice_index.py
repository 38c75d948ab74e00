"""The lattice index."""

import torch

from infdiff import ops


def test_lattice_index_numbers_the_points():
    index = ops.lattice_index(torch.tensor([[1, 3], [0, 5]]), (2, 3))
    assert index.dtype == torch.int32
    assert index.tolist() == [[[-1, 0, -1], [1, -1, -1]], [[0, -1, -1], [-1, -1, 1]]]

"""Rows of features moved by number."""

import torch

from infdiff.ops.rows import gather_rows, scatter_rows
from infdiff.points import draw_points


def test_rows_move_there_and_back(generator):
    ids = draw_points(2, 4, (3, 3), generator)
    features = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    whole = torch.randn(2, 9, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.equal(gather_rows(scatter_rows(features, ids, 9), ids), features)
    assert torch.autograd.gradcheck(lambda f: scatter_rows(f, ids, 9), (features,))
    assert torch.autograd.gradcheck(lambda f: gather_rows(f, ids), (whole,))

"""Blocks on points."""

import pytest
import torch

from infdiff.nn.sparse_block import by_rows


@pytest.mark.parametrize("max_rows", [1, 14, 1000])
def test_functions_of_single_points_are_applied_slice_by_slice(max_rows, generator):
    a, b = (torch.randn(2, 50, 3, generator=generator) for _ in range(2))
    seen = []

    def function(a, b):
        seen.append(a.shape[1])
        return torch.cat([a * b, a], dim=2)

    expected, out = torch.cat([a * b, a], dim=2), torch.empty(2, 50, 6)
    with torch.no_grad():
        assert torch.equal(by_rows(function, a, b, max_rows=max_rows), expected)
        assert by_rows(function, a, b, out=out, max_rows=max_rows) is out
    assert torch.equal(out, expected)
    assert max(seen) == min(50, max(1, max_rows // 2))


def test_training_applies_them_to_all_points_at_once():
    seen = []
    by_rows(lambda x: seen.append(x.shape) or x, torch.zeros(1, 50, 3), max_rows=7)
    assert seen == [(1, 50, 3)]

"""Conjugate residuals against a direct solution."""

import itertools

import pytest
import torch

from infdiff.diffusion.residuals import conjugate_residuals


@pytest.fixture
def system(generator):
    """A symmetric matrix with four distinct eigenvalues, right sides of three images, and a matrix for the effect."""
    turned = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))[0]
    values = torch.tensor([1.0, 1, 2, 2, 5, 5, 9, 9], dtype=torch.float64)
    matrix = turned @ (values[:, None] * turned.mT)
    right = torch.randn(3, 8, dtype=torch.float64, generator=generator)
    return matrix, right, torch.randn(8, 5, dtype=torch.float64, generator=generator)


def test_as_many_iterations_as_eigenvalues_solve_it(system):
    matrix, right, effect = system
    total, remaining = conjugate_residuals(lambda p: (p @ effect, p @ matrix), right, 4)
    torch.testing.assert_close(remaining, torch.zeros_like(right), rtol=0, atol=1e-10)
    torch.testing.assert_close(total, torch.linalg.solve(matrix, right.mT).mT @ effect)


def test_each_iteration_leaves_less_and_what_it_says_it_leaves(system):
    matrix, right, _ = system
    left = [conjugate_residuals(lambda p: (p, p @ matrix), right, n) for n in (1, 2, 3)]
    sizes = [right.norm(dim=1), *(remaining.norm(dim=1) for _, remaining in left)]
    assert all((b < a).all() for a, b in itertools.pairwise(sizes))
    for total, remaining in left:
        torch.testing.assert_close(right - total @ matrix, remaining)


def test_nothing_to_solve_changes_nothing(system):
    matrix, right, _ = system
    total, remaining = conjugate_residuals(lambda p: (p, p @ matrix), torch.zeros_like(right), 3)
    assert torch.equal(total, torch.zeros_like(right))
    assert torch.equal(remaining, torch.zeros_like(right))
    with pytest.raises(ValueError, match="at least 1"):
        conjugate_residuals(lambda p: (p, p), right, 0)

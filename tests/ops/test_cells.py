"""Which pixels a cell holds, against exact fractions."""

from fractions import Fraction

import pytest
import torch

from infdiff.ops.cells import MANY, cells_of_points, mean_share, pixels_of_cells, sum_over_cells
from infdiff.points import all_points, draw_points

AXES = [(p, n) for p in (1, 2, 3, 5, 6, 9, 10, 24) for n in (1, 2, 3, 4, 6, 7, 16)]
CPU = torch.device("cpu")


def parts(pixels, cells):
    """(cells, pixels): the part of each pixel that a cell holds, by where its centre lies."""
    table = torch.zeros(cells, pixels, dtype=torch.float64)
    for i in range(pixels):
        centre = Fraction(2 * i + 1, 2 * pixels) * cells
        for cell in range(cells):
            table[cell, i] = 1 if cell < centre < cell + 1 else 0.5 if centre in (cell, cell + 1) else 0
    return table


def table_of(size, grid):
    """(G * K, H * W): the same in two dimensions."""
    down, across = (parts(p, n) for p, n in zip(size, grid, strict=True))
    return torch.einsum("gh,kw->gkhw", down, across).reshape(grid[0] * grid[1], -1)


@pytest.mark.parametrize(("pixels", "cells"), AXES)
def test_sums_along_an_axis(pixels, cells, generator):
    line = torch.randn(2, pixels, 3, dtype=torch.float64, generator=generator)
    expected = parts(pixels, cells) @ line
    for step in (1, 2, 5, pixels):
        total = torch.zeros_like(expected)
        for first in range(0, pixels, step):
            some, start = sum_over_cells(line[:, first : first + step], 1, pixels, cells, first)
            total[:, start : start + some.shape[1]] += some
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "grid"), [((10, 9), (4, 3)), ((6, 15), (4, 6)), ((3, 4), (6, 2)), ((8, 8), (4, 2))])
def test_cells_of_points_and_pixels_of_cells(size, grid, generator):
    table = table_of(size, grid)
    pixel, part = pixels_of_cells(size, grid, CPU)
    torch.testing.assert_close(torch.zeros_like(table).scatter_add_(1, pixel, part), table)
    for ids in (draw_points(2, 5, size, generator), all_points(2, size)):
        cell = cells_of_points(ids, size, grid)
        held = torch.zeros(2, ids.shape[1], len(table), dtype=torch.float64)
        held.scatter_add_(2, cell, torch.full(cell.shape, 1 / cell.shape[2], dtype=torch.float64))
        torch.testing.assert_close(held.mT, table[:, ids].transpose(0, 1))
        count = held.sum(dim=1)
        expected = torch.where(count > MANY, 1 / count, 0).float()
        torch.testing.assert_close(mean_share(ids, size, grid), expected)

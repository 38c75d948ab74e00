"""Changes of size without weights: what functions become on the next grid."""

import math

import pytest
import torch

from infdiff.coordinates import cell_centres
from infdiff.nn.resample import BilinearDownsample, BilinearUpsample, cell_means

SIZES = [(80, 80), (48, 40), (33, 50), (5, 9), (2, 3), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_stays_the_same_constant(size):
    x = torch.full((2, 3, *size), 0.7, dtype=torch.float64)
    small = BilinearDownsample()(x)
    assert small.shape[2:] == (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    back = BilinearUpsample()(small, size)
    torch.testing.assert_close(small, torch.full_like(small, 0.7), rtol=0, atol=1e-12)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(80, 80), (48, 40), (65, 50), (33, 41)])
def test_a_smooth_function_stays_in_its_place(size):
    """To second order in the cells' sides; the first order, a shift, would be five times as much and more."""

    def function(shape):
        down, across = (cell_centres(n) * math.pi for n in shape)
        return (torch.cos(down)[:, None] + torch.cos(2 * across))[None, None]

    small = ((size[0] + 1) // 2, (size[1] + 1) // 2)

    def bound(shape):
        """h^2 f'' / 8 on each axis: linear interpolation between cells h apart."""
        return ((math.pi / shape[0]) ** 2 + (2 * math.pi / shape[1]) ** 2) / 8

    torch.testing.assert_close(BilinearDownsample()(function(size)), function(small), rtol=0, atol=bound(size))
    torch.testing.assert_close(BilinearUpsample()(function(small), size), function(size), rtol=0, atol=bound(small))


def test_halving_an_even_grid_is_the_mean_of_four_cells(generator):
    x = torch.randn(1, 2, 6, 8, generator=generator)
    expected = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(BilinearDownsample()(x), expected)


@pytest.mark.parametrize(("size", "side"), [((8, 8), 4), ((8, 12), 4), ((9, 6), 4), ((3, 2), 4), ((8, 8), 1)])
def test_cell_means_are_those_of_adaptive_pooling(size, side):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cell_means(x, side), torch.nn.functional.adaptive_avg_pool2d(x, side))

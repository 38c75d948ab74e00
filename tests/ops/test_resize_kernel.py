"""Kernels at any resolution: the tent interpolant of the taps."""

import pytest
import torch

from infdiff import ops


def tent_kernel(distance):
    return max(0.0, 1 - abs(distance))


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7])
def test_resized_kernels_interpolate_the_taps(scale, generator):
    taps = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    resized = ops.resize_kernel(taps, (scale, scale))
    reach = resized.shape[0] // 2
    for n in range(-reach, reach + 1):
        for m in range(-reach, reach + 1):
            value = sum(
                taps[i, j].item() * tent_kernel(n / scale - (i - 2)) * tent_kernel(m / scale - (j - 2))
                for i in range(5)
                for j in range(5)
            )
            assert resized[n + reach, m + reach].item() == pytest.approx(value, abs=1e-12)
    # Nothing is cut off: the next offset lies outside the kernel.
    assert (reach + 1) / scale >= 3


def mean_over_cell(taps, centre, width):
    """The tent interpolant of taps (k,) over a cell, by the midpoint rule in many steps."""
    steps = 2000
    places = [centre + width * ((i + 0.5) / steps - 0.5) for i in range(steps)]
    half = (len(taps) - 1) / 2
    return sum(tap * tent_kernel(x - (i - half)) for x in places for i, tap in enumerate(taps)) / steps


@pytest.mark.parametrize("scale", [0.99, 0.75, 0.5, 0.4, 1 / 3, 0.25, 0.1])
@pytest.mark.parametrize("k", [1, 5])
def test_below_the_base_resolution_kernels_are_means_over_pixels(scale, k, generator):
    down, across = torch.randn(2, k, dtype=torch.float64, generator=generator)
    # Above the base resolution along the other axis: each has a rule of its own.
    resized = ops.resize_kernel(down[:, None] * across, (scale, 2.0))
    reach = resized.shape[0] // 2
    other = [
        sum(t * tent_kernel(m / 2 - (i - k // 2)) for i, t in enumerate(across.tolist())) for m in range(-k, k + 1)
    ]
    for n in range(-reach, reach + 1):
        value = mean_over_cell(down.tolist(), n / scale, 1 / scale)
        torch.testing.assert_close(resized[n + reach], value * torch.tensor(other).double(), rtol=0, atol=1e-5)
    # Nothing is cut off, and the outermost pixels do reach the kernel.
    assert (reach + 0.5) / scale >= (k + 1) / 2 - 1e-9
    assert (reach - 0.5) / scale < (k + 1) / 2


@pytest.mark.parametrize("scale", [0.99, 0.75, 0.5, 0.4, 1 / 3, 0.25, 0.1])
def test_below_the_base_resolution_every_tap_keeps_its_sum(scale):
    weights = ops.tent_matrix(7, scale)
    torch.testing.assert_close(weights.sum(dim=0), torch.full((7,), scale, dtype=torch.float64), rtol=1e-12, atol=1e-12)

"""Kernels at any resolution: the tent interpolant of the taps."""

import pytest
import torch

from infdiff import ops


def tent_kernel(distance):
    return max(0.0, 1 - abs(distance))


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7, 0.5])
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

"""Between two images."""

import pytest
import torch

from infdiff.pipelines.interpolate import spherical


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 1.0])
def test_noise_between_noises_is_as_large_as_they_are(part, generator):
    a, b = (torch.randn(1, 3, 40, 40, generator=generator) for _ in range(2))
    assert spherical(a, b, part).std() == pytest.approx(1.0, abs=0.02)


def test_the_ends_are_the_ends(generator):
    a, b = (torch.randn(1, 3, 4, 4, generator=generator) for _ in range(2))
    torch.testing.assert_close(spherical(a, b, 0.0), a)
    torch.testing.assert_close(spherical(a, b, 1.0), b)
    torch.testing.assert_close(spherical(a, a, 0.4), a)

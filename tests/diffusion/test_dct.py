"""The DCT-II filter against scipy's transform."""

import pytest
import scipy.fft
import torch

from infdiff.diffusion.dct import filter_image


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 5), (16, 16), (31, 64)])
def test_a_gain_multiplies_scipys_coefficients(size, generator):
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    gain = torch.rand(*size, dtype=torch.float64, generator=generator)
    modes = scipy.fft.dctn(image.numpy(), type=2, axes=(-2, -1), norm="ortho") * gain.numpy()
    expected = torch.from_numpy(scipy.fft.idctn(modes, type=2, axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(filter_image(image, gain), expected)

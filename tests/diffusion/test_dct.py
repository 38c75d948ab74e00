"""The DCT-II filter against scipy's transform."""

import math

import pytest
import scipy.fft
import torch

from infdiff.coordinates import cell_centres
from infdiff.diffusion import dct
from infdiff.diffusion.dct import filter_image, resample
from infdiff.diffusion.mollifier import Mollifier


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 5), (16, 16), (31, 64), (2, 300)])
def test_a_gain_multiplies_scipys_coefficients(size, dtype, generator):
    image = torch.randn(2, 3, *size, generator=generator).to(dtype).double()
    gain = torch.rand(*size, dtype=torch.float64, generator=generator)
    modes = scipy.fft.dctn(image.numpy(), type=2, axes=(-2, -1), norm="ortho") * gain.numpy()
    expected = torch.from_numpy(scipy.fft.idctn(modes, type=2, axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(filter_image(image.to(dtype), gain), expected.to(dtype))


def test_large_images_are_filtered_one_by_one(generator, monkeypatch):
    image, gain = torch.randn(2, 3, 8, 5, generator=generator), torch.rand(8, 5, dtype=torch.float64)
    together = filter_image(image, gain)
    for pixels in (1, 80):
        monkeypatch.setattr(dct, "_PIXELS_AT_ONCE", pixels)
        assert torch.equal(filter_image(image, gain), together)


@pytest.mark.parametrize(("small", "large"), [((8, 8), (16, 16)), ((6, 9), (15, 11)), ((5, 7), (5, 7))])
def test_resampling_reads_a_band_limited_function_elsewhere(small, large):
    def sampled(size):
        y, x = (cell_centres(n) for n in size)
        return torch.cos(2 * math.pi * y)[:, None] * (1 + 0.5 * torch.cos(3 * math.pi * x)) + 0.3

    torch.testing.assert_close(resample(sampled(small)[None], large)[0], sampled(large))
    torch.testing.assert_close(resample(sampled(large)[None], small)[0], sampled(small))


def test_resampled_noise_keeps_its_law(generator):
    mollifier = Mollifier(1.0, (32, 32))
    noise = mollifier.noise(256, 1, (32, 32), [generator])
    lifted = resample(noise, (96, 96))
    direct = mollifier.noise(64, 1, (96, 96), [generator])
    assert lifted.var() == pytest.approx(direct.var().item(), rel=0.05)
    for shift in (3, 6):
        a, b = (((x[..., shift:] * x[..., :-shift]).mean() / x.var()).item() for x in (lifted, direct))
        assert a == pytest.approx(b, abs=0.03)

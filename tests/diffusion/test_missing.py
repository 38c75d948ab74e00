"""Averages over what is known of an image."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from infdiff.diffusion.missing import known_average, masked, valid_mean
from infdiff.diffusion.mollifier import Mollifier


@pytest.fixture
def field(generator):
    values = torch.randn(3, 2, 20, 24, generator=generator, dtype=torch.float64)
    return values, torch.rand(3, 20, 24, generator=generator) < 0.5


def test_the_normalised_convolution_is_scipys(field):
    values, valid = field
    out = known_average(Mollifier(1.5, (20, 24)), torch.where(valid[:, None], values, torch.nan), valid)
    for image, mask, found in zip(values, valid.numpy(), out, strict=True):
        share = gaussian_filter(mask.astype(float), 1.5, mode="reflect")
        for plane, got in zip(image.numpy(), found.numpy(), strict=True):
            expected = gaussian_filter(np.where(mask, plane, 0), 1.5, mode="reflect") / share
            np.testing.assert_allclose(got, expected, atol=1e-10)


def test_a_constant_stays_one_and_nothing_known_is_0(field):
    _, valid = field
    blur = Mollifier(1.0, (20, 24))
    torch.testing.assert_close(
        known_average(blur, torch.full((3, 1, 20, 24), 7.0), valid), torch.full((3, 1, 20, 24), 7.0)
    )
    valid = torch.zeros_like(valid)
    valid[:, 0, 0] = True
    out = known_average(blur, torch.full((3, 1, 20, 24), 7.0), valid)
    assert out[:, :, 15:, 15:].abs().max() == 0
    torch.testing.assert_close(out[:, :, 0, 0], torch.full((3, 1), 7.0))


def test_all_known_is_the_blur_itself(field):
    values, valid = field
    blur = Mollifier(1.0, (20, 24))
    torch.testing.assert_close(known_average(blur, values, torch.ones_like(valid)), blur(values))


def test_means_over_valid_pixels(field):
    values, valid = field
    expected = torch.stack([image[:, mask].mean() for image, mask in zip(values, valid, strict=True)])
    torch.testing.assert_close(valid_mean(values, valid), expected)
    assert masked(torch.full((1, 1, 1, 2), torch.inf), torch.tensor([[[False, True]]])).tolist() == [[[[0, torch.inf]]]]

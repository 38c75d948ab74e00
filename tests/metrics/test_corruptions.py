"""Corruptions of known strength."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from infdiff.metrics import corruptions
from infdiff.metrics.compare import Comparison, compare, describe
from tests.metrics.sets import NETWORK, images


def test_blur_is_pillows_and_a_constant_stays(generator):
    smooth = corruptions.blur(images(1, generator, (24, 20)))
    picture = Image.fromarray(images(1, torch.Generator().manual_seed(0), (24, 20))[0].permute(1, 2, 0).numpy())
    expected = np.asarray(picture.filter(ImageFilter.GaussianBlur(1))).astype(int)
    # Pillow's is an approximation by boxes.
    assert np.abs(smooth[0].permute(1, 2, 0).numpy().astype(int) - expected)[4:-4, 4:-4].mean() < 3
    flat = torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)
    assert all((function(flat) == 77).all() for name, function in corruptions.CORRUPTIONS.items() if name != "noise")


def test_bicubic_corruption_is_pillows(generator):
    image = images(1, generator, (32, 32))
    picture = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    small = picture.resize((8, 8), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC)
    found = corruptions.down_and_up(image, 4)[0].permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - np.asarray(small))
    # Pillow rounds after each of its four passes.
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_noise_is_new_for_every_batch_and_the_same_again(generator):
    first, second = images(64, generator, (32, 32)), images(64, generator, (32, 32))
    a, b = corruptions.noise(first), corruptions.noise(second)
    assert torch.equal(a, corruptions.noise(first))
    assert (a == b).float().mean() < 0.01
    assert a.float().mean() == pytest.approx(127.5, abs=1)
    assert a.float().var() == pytest.approx((256**2 - 1) / 12, rel=0.01)


def test_stronger_corruption_is_further_away(generator):
    real = torch.nn.functional.interpolate(images(60, generator, (8, 8)).float(), (32, 32), mode="bilinear").to(
        torch.uint8
    )
    (true,) = describe([NETWORK], [real])
    spectra = [
        compare(Comparison(*describe([NETWORK], [function(real)]), true), ["spectrum"])["spectrum"]
        for name, function in corruptions.CORRUPTIONS.items()
        if name.startswith("bicubic")
    ]
    assert 0 < spectra[0] < spectra[1] < spectra[2]

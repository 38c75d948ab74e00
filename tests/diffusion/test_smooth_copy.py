"""T x_0 at some points: equal to T of the whole image, read there."""

import math

import pytest
import torch

from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.smooth_copy import SmoothCopy, smooth_copy
from infdiff.points import draw_points, gather


def noise_image(size, generator):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def errors(image, mollifier, copy, source, generator):
    """Of T x_0 at half of the pixels, borders among them."""
    size = (image.shape[1], image.shape[2])
    ids = draw_points(1, size[0] * size[1] // 2, size, generator)
    expected = gather(mollifier((image.float() / 127.5 - 1).unsqueeze(0)), ids)[0]
    return (copy.read(source, ids[0], size) - expected).abs()


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 1.5])
def test_a_narrow_T_reads_the_pixels_and_is_exact(sigma, generator):
    image, mollifier = noise_image((33, 50), generator), Mollifier(sigma, (33, 50))
    copy = SmoothCopy.for_mollifier(mollifier, (33, 50))
    assert copy.of_pixels
    assert errors(image, mollifier, copy, image.permute(1, 2, 0), generator).max() < 2e-6


@pytest.mark.parametrize(("sigma", "size"), [(1.6, (60, 77)), (2.8, (90, 180)), (8.0, (256, 100)), (20.0, (64, 64))])
def test_a_wide_T_reads_the_copy_to_a_thousandth(sigma, size, generator):
    mollifier = Mollifier(sigma, size)
    copy = SmoothCopy.for_mollifier(mollifier, size)
    assert not copy.of_pixels
    assert math.prod(copy.cells) < math.prod(size)
    waves = (torch.arange(size[1]) % 2 * 255).to(torch.uint8).expand(3, *size)
    for image in (noise_image(size, generator), waves.contiguous()):
        assert errors(image, mollifier, copy, copy.make(image), generator).max() < 1e-3


@pytest.mark.parametrize("axis", [1, 2])
def test_no_wave_is_taken_for_another(axis):
    """The image that a lattice serves worst is a wave at its own limit of resolution: within a thousandth, too."""
    size, mollifier = (128, 128), Mollifier(4.0, (128, 128))
    copy = SmoothCopy.for_mollifier(mollifier, size)
    for mode in range(1, 128, 3):
        line = torch.cos(math.pi * mode * (torch.arange(128) + 0.5) / 128)
        wave = ((line + 1) * 127.5).round().to(torch.uint8)
        image = (wave[:, None] if axis == 1 else wave).expand(3, *size)
        assert errors(image, mollifier, copy, copy.make(image), torch.Generator().manual_seed(mode)).max() < 1e-3


def test_images_of_another_size_are_mollified_by_the_resolution_law(generator):
    image, mollifier = noise_image((96, 64), generator), Mollifier(1.0, (32, 32))
    copy = SmoothCopy.for_mollifier(mollifier, (96, 64))
    assert errors(image, mollifier, copy, copy.make(image), generator).max() < 1e-3


def test_a_copy_serves_any_T_that_is_wide_enough(generator):
    image, cells = noise_image((100, 80), generator), (50, 40)
    source = smooth_copy(image, cells)
    for sigma in (2.5, 4.0, 9.0):
        mollifier = Mollifier(sigma, (100, 80))
        copy = SmoothCopy.of_cells(cells, mollifier)
        assert copy is not None
        assert errors(image, mollifier, copy, source, generator).max() < 1e-3
    assert SmoothCopy.of_cells(cells, Mollifier(2.4, (100, 80))) is None


def test_a_points_value_does_not_depend_on_the_others(generator):
    image, mollifier = noise_image((40, 40), generator), Mollifier(2.0, (40, 40))
    copy = SmoothCopy.for_mollifier(mollifier, (40, 40))
    source = copy.make(image)
    ids = draw_points(1, 100, (40, 40), generator)[0]
    together = copy.read(source, ids, (40, 40))
    for place in (0, 17, 99):
        torch.testing.assert_close(copy.read(source, ids[place : place + 1], (40, 40))[0], together[place])

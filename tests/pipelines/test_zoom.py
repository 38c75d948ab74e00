"""Levels of a zoom: agreement with the coarser one, neighbours that meet, regions."""

import pytest
import torch
import torch.nn.functional as F

from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.noise_pyramid import NoisePyramid
from infdiff.pipelines.windows import WindowModel
from infdiff.pipelines.zoom import Region, refine, with_surroundings

WINDOW = (16, 16)


def model_of(size, sigma):
    """A network that answers with a local function of its input, in windows of 16 pixels."""
    process = MollifiedDiffusion(Mollifier(sigma, WINDOW), target="v").with_pixels_of(size)

    def network_for(count):
        return lambda x, t, z, labels, known: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False).tanh()

    return WindowModel(
        encode=lambda windows: windows.new_zeros(len(windows), 1),
        network_for=network_for,
        process=process,
        window=WINDOW,
    )


def smooth(height, width):
    small = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    return F.interpolate(small, (height, width), mode="bicubic").clamp(-0.9, 0.9)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_averaged_again_it_is_the_coarser_level(sigma):
    coarse = smooth(20, 24)
    noise = NoisePyramid(torch.tensor(5), (20, 24)).mollified(1, (0, 40), (0, 48), Mollifier(sigma, (40, 48)))
    fine = refine(coarse, noise[None], model_of((40, 48), sigma))
    assert fine.shape == (1, 3, 40, 48)
    assert (F.avg_pool2d(fine, 2) - coarse).abs().max() < 0.02
    assert (fine - F.interpolate(coarse, (40, 48), mode="bicubic")).std() > 0.005


def test_regions_drawn_apart_meet():
    size, sigma = (80, 160), 0.3
    coarse, pyramid = smooth(40, 80), NoisePyramid(torch.tensor(5), (40, 80))
    drawn = []
    for part in (Region(16, 16, 64, 64), Region(16, 64, 64, 112)):
        region = with_surroundings(part, size, 16)
        rows, columns = (region.top, region.bottom), (region.left, region.right)
        noise = pyramid.mollified(1, rows, columns, Mollifier(sigma, size))[None]
        drawn.append((region, refine(region.halved().of(coarse), noise, model_of(region.size, sigma))))
    shared = Region(16, 60, 64, 68)
    left, right = (shared.within(region).of(image) for region, image in drawn)
    new = (left - shared.of(F.interpolate(coarse, size, mode="bicubic"))).std()
    assert (left - right).square().mean().sqrt() < 0.1 * new


def test_surroundings_stay_inside_and_keep_their_size():
    size = (96, 64)
    for top in range(0, 96, 16):
        for left in range(0, 64, 16):
            part = Region(top, left, top + 16, left + 16)
            region = with_surroundings(part, size, 8)
            assert region.size == (32, 32)
            assert 0 <= region.top <= top <= top + 16 <= region.bottom <= size[0]
            assert 0 <= region.left <= left <= left + 16 <= region.right <= size[1]
            assert region.top % 2 == region.left % 2 == 0
            inner = part.within(region)
            assert (region.top + inner.top, region.left + inner.left) == (top, left)
    assert with_surroundings(Region(0, 0, 96, 64), size, 8) == Region(0, 0, 96, 64)

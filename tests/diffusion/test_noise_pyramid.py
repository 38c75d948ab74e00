"""Noise of one image at every size: each level refines the one before, and any region is made by itself."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.noise_pyramid import NoisePyramid, _refinement

TOP = (16, 24)
KEY = torch.tensor(-1234567890123456789)


@pytest.fixture
def pyramid():
    return NoisePyramid(KEY, TOP)


def everything(pyramid, level):
    height, width = pyramid.size(level)
    return (0, height), (0, width)


def averaged(images):
    return torch.nn.functional.avg_pool2d(images, 2)


@pytest.mark.parametrize("cells", [4, 16, 50, 128])
def test_a_refinement_is_an_orthonormal_transform(cells):
    step = _refinement(cells, (0, cells))
    assert step.span == (0, cells // 2)
    whole = torch.cat([step.low, step.high], dim=1).double()
    torch.testing.assert_close(whole.mT @ whole, torch.eye(cells).double(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("sigma", "level"), [(1.0, 1), (1.0, 2), (1.0, 3), (0.3, 3), (0.5, 3)])
def test_finer_noise_averaged_is_the_coarser_noise(pyramid, sigma, level):
    """To 2 %, from where T is two pixels of the coarser size wide; the average itself takes 4 % at one pixel."""
    mollifier = Mollifier(sigma, TOP)
    coarse = pyramid.mollified(level, *everything(pyramid, level), mollifier)
    fine = pyramid.mollified(level + 1, *everything(pyramid, level + 1), mollifier)
    assert (averaged(fine) - coarse).norm() < 0.02 * coarse.norm()


def test_the_smooth_part_of_white_noise_stays(pyramid):
    """A filter far wider than a pixel sees the same noise on every level."""
    wide = Mollifier(2.0, TOP)
    seen = [wide(pyramid.white(level, *everything(pyramid, level))) * 2**level for level in range(4)]
    for coarse, fine in itertools.pairwise(seen):
        assert (averaged(fine) - coarse).norm() < 0.02 * coarse.norm()


def test_every_level_is_white(pyramid):
    white = pyramid.white(4, *everything(pyramid, 4))
    count = white.numel()
    assert abs(float(white.mean())) < 5 / math.sqrt(count)
    assert abs(float(white.var()) - 1) < 5 * math.sqrt(2 / count)
    for down, across in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        shifted = white[:, down:, across:]
        product = (shifted * white[:, : shifted.shape[1], : shifted.shape[2]]).mean()
        assert abs(float(product)) < 5 / math.sqrt(count)
    between = torch.corrcoef(white.flatten(1)) - torch.eye(3)
    assert between.abs().max() < 5 / math.sqrt(count / 3)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_mollified_noise_has_its_variance_at_every_level(sigma):
    pyramid = NoisePyramid(KEY, (32, 32))
    mollifier = Mollifier(sigma, (32, 32))
    for level in range(4):
        edge = 4 << level
        inner = pyramid.mollified(level, *everything(pyramid, level), mollifier)[:, edge:-edge, edge:-edge]
        # About one independent value for 4 pi sigma^2 pixels of the base.
        values = 3 * 24**2 / max(1, 4 * math.pi * sigma**2)
        assert abs(float(inner.var()) / mollifier.noise_variance() - 1) < 5 * math.sqrt(2 / values)


@pytest.mark.parametrize("region", [((0, 9), (0, 96)), ((31, 40), (70, 96)), ((63, 64), (0, 1))])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0])
def test_a_region_is_that_of_the_whole(pyramid, region, sigma):
    mollifier = Mollifier(sigma, TOP)
    whole = pyramid.mollified(2, *everything(pyramid, 2), mollifier)
    part = pyramid.mollified(2, *region, mollifier)
    (top, bottom), (left, right) = region
    torch.testing.assert_close(part, whole[:, top:bottom, left:right], atol=1e-5, rtol=1e-5)


def test_keys_name_different_noise(pyramid):
    other = NoisePyramid(KEY + 1, TOP)
    here, there = (p.white(2, *everything(p, 2)).flatten() for p in (pyramid, other))
    assert abs(float(torch.corrcoef(torch.stack([here, there]))[0, 1])) < 5 / math.sqrt(len(here))


def test_deep_regions_cost_what_is_seen():
    """A place of an image of 4 million pixels a side."""
    deep = NoisePyramid(KEY, (64, 64))
    part = deep.white(16, (3_000_000, 3_000_016), (5, 21))
    assert part.shape == (3, 16, 16)
    assert 0.7 < float(part.std()) < 1.3

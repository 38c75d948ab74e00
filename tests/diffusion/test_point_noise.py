"""Mollified noise at some points: its law, and that a point's value is its own."""

import math

import pytest
import torch

from infdiff.diffusion import point_noise
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.point_noise import draw_keys, noise_at
from infdiff.points import all_points, draw_points

SIZES = [
    ((64, 64), 1.0, (64, 64)),
    ((64, 64), 1.0, (32, 32)),
    ((64, 64), 1.0, (256, 128)),
    ((64, 64), 0.3, (64, 64)),
    ((720, 1440), 2.8, (720, 1440)),
    ((100, 60), 3.7, (50, 60)),
    ((8, 8), 5.0, (16, 16)),
]


@pytest.mark.parametrize(("base", "sigma", "size"), SIZES)
def test_the_covariance_is_that_of_the_function(base, sigma, size):
    """Along each axis, between any two pixels, borders included: a Gaussian and its reflections, to 2 %.

    The covariance of T xi on the square is the product of both.
    """
    cells, stds = point_noise._lattice(Mollifier(sigma, base))
    for axis in (0, 1):
        window = point_noise.noise_window(size[axis], cells[axis], stds[axis], sigma, torch.device("cpu"))
        rows = torch.zeros(size[axis], cells[axis], dtype=torch.float64)
        rows.scatter_add_(1, window.place, window.weight.double())
        place = (torch.arange(size[axis], dtype=torch.float64) + 0.5) * base[axis] / size[axis]  # in base pixels
        expected = torch.zeros(size[axis], size[axis], dtype=torch.float64)
        for turn in range(-8, 9):
            for sign in (-1, 1):
                apart = place[:, None] + sign * place + 2 * turn * base[axis]
                expected += torch.exp(-(apart**2) / (4 * sigma**2))
        expected /= 2 * sigma * math.sqrt(math.pi)
        torch.testing.assert_close(rows @ rows.T, expected, rtol=0, atol=0.02 * expected.diagonal().min().item())


@pytest.mark.parametrize(("size", "lag"), [((64, 64), 1), ((128, 32), 1), ((32, 32), 1)])
def test_samples_have_the_law_of_the_field(size, lag):
    mollifier, count = Mollifier(1.0, (64, 64)), 250_000 // math.prod(size)
    generator = torch.Generator().manual_seed(5)
    points = noise_at(mollifier, all_points(count, size), size, draw_keys(count, generator), 3)
    field = mollifier.noise(count, 3, size, [generator])
    for shift in ((0, 0), (lag, 0), (0, lag), (lag, lag)):
        moments = []
        for noise in (points.mT.unflatten(2, size), field):
            a = noise[..., 5 : size[0] - 5, 5 : size[1] - 5]
            b = noise[..., 5 + shift[0] : size[0] - 5 + shift[0], 5 + shift[1] : size[1] - 5 + shift[1]]
            moments.append((a * b).mean().item() / mollifier.noise_variance())
        assert moments[0] == pytest.approx(moments[1], abs=0.02)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.7])
def test_a_points_value_does_not_depend_on_the_others(sigma, generator):
    size, mollifier = (40, 60), Mollifier(sigma, (40, 60))
    keys = draw_keys(3, generator)
    everywhere = noise_at(mollifier, all_points(3, size), size, keys, 3)
    for count in (1, 7, 300):
        ids = draw_points(3, count, size, generator)
        some = noise_at(mollifier, ids, size, keys, 3)
        assert torch.equal(some, everywhere.gather(1, ids.unsqueeze(2).expand(-1, -1, 3)))
    alone = noise_at(mollifier, ids[1:2, 4:5], size, keys[1:2], 3)
    assert torch.equal(alone, some[1:2, 4:5])


def test_it_is_one_function_at_every_size():
    """Pixel (3 i + 1, 3 j + 1) of an image three times as large is at the same place."""
    mollifier = Mollifier(1.0, (16, 24))
    keys = draw_keys(2, torch.Generator().manual_seed(0))
    small = noise_at(mollifier, all_points(2, (16, 24)), (16, 24), keys, 3)
    large = noise_at(mollifier, all_points(2, (48, 72)), (48, 72), keys, 3)
    read = large.unflatten(1, (48, 72))[:, 1::3, 1::3].flatten(1, 2)
    torch.testing.assert_close(small, read, rtol=0, atol=1e-5)


def test_every_image_and_channel_has_noise_of_its_own():
    size, mollifier = (64, 64), Mollifier(0.0, (64, 64))
    keys = torch.tensor([1, 2, 3])  # keys next to one another are as good as any
    white = noise_at(mollifier, all_points(3, size), size, keys, 6).transpose(1, 2).flatten(0, 1).double()
    correlation = torch.corrcoef(white)
    off = correlation - torch.eye(len(white))
    assert off.abs().max() < 4.5 / 64
    neighbours = white.unflatten(1, size)
    for shift in (1, 2, 7, 64 - 1):
        assert (neighbours[:, :, shift:] * neighbours[:, :, :-shift]).mean().abs() < 4.5 / math.sqrt(18 * 64)
        assert (neighbours[:, shift:] * neighbours[:, :-shift]).mean().abs() < 4.5 / math.sqrt(18 * 64)


def test_white_values_are_normal():
    mollifier, size = Mollifier(0.0, (512, 512)), (512, 512)
    white = noise_at(mollifier, all_points(1, size), size, torch.tensor([77]), 4).double()
    count = white.numel()
    assert white.mean().abs() < 4 / math.sqrt(count)
    assert white.square().mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / count))
    assert white.pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / count) + 0.01)
    for level in (-2.0, -0.5, 1.0, 3.0):
        part = 0.5 * math.erfc(level / math.sqrt(2))
        assert (white > level).double().mean().item() == pytest.approx(part, abs=4 * math.sqrt(part / count))


def test_keys_are_the_generators_alone():
    a, b, c = (draw_keys(4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.unique().numel() == 4

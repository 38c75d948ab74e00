"""The kernel of enlarged convolutions against float64: types, scales, tiles, and what a device can hold."""

import pytest
import torch

from infdiff import ops
from infdiff.ops.dense_conv2d import dense_conv2d
from infdiff.ops.gpu import enlarged, launch
from infdiff.points import all_points
from tests.ops.gpu.test_kernels import compare, random


@pytest.mark.parametrize(
    ("scale", "channels", "size", "dtype"),
    [
        ((2.0, 2.0), 8, (37, 41), torch.float32),
        ((2.0, 2.0), 24, (18, 9), torch.float16),
        ((4.0, 4.0), 8, (19, 35), torch.float16),
        ((4.0, 4.0), 72, (17, 33), torch.bfloat16),
        ((1.0, 4.0), 8, (9, 37), torch.bfloat16),
        ((4.0, 1.0), 8, (21, 6), torch.float32),
        ((3.0, 2.0), 8, (20, 43), torch.float32),
        ((8.0, 8.0), 8, (21, 40), torch.float32),
        ((8.0, 8.0), 8, (1, 1), torch.bfloat16),
    ],
)
def test_every_type_and_scale(scale, channels, size, dtype, device):
    ids = all_points(2, size)
    features, bias = random(2, ids.shape[1], channels, dtype=dtype), random(channels, dtype=dtype, seed=3)
    taps = random(channels, 1, 7, 7, dtype=dtype, seed=2)

    def on_kernels(f):
        points = ops.Points.of(ids.to(device), size, 7, scale)
        return ops.sparse_depthwise_conv2d(f, taps.to(device), points, bias=bias.to(device))

    def wanted(f):
        # In float64 no kernel serves.
        points = ops.Points.of(ids, size, 7, scale, dtype=torch.float64)
        return ops.sparse_depthwise_conv2d(f, taps.double(), points, "dense", bias.double())

    compare(on_kernels, wanted, [features], dtype, device)


@pytest.mark.parametrize(("window", "step"), [((7, 7), (4, 4)), ((3, 5), (2, 1)), ((1, 3), (1, 3)), ((13, 1), (1, 2))])
def test_blocks_of_one_tile_and_of_many_give_the_same_bits(window, step, device, monkeypatch):
    # The rows of several tiles go through one ring, from its end to its beginning.
    height, width = 131, 39
    image = random(2, height, width, 16, dtype=torch.float32).to(device)
    taps = random(16, *window, dtype=torch.float32, seed=1).to(device)
    factors = random(height * width, dtype=torch.float32, seed=2).to(device)
    results = []
    for blocks in (1, 3, 1024):
        monkeypatch.setattr(enlarged, "_BLOCKS", blocks)
        results.append(enlarged.enlarged_conv(image, taps, step, factors=factors))
        results.append(enlarged.enlarged_conv(image, taps, step, factors=factors, adjoint=True))
    for one, more in zip(results[2:], results, strict=False):
        assert torch.equal(one, more)


def test_what_is_far_outside_does_not_matter(device):
    # Not finite: what lies beyond the taps' reach is not even multiplied by zero.
    image = random(1, 64, 80, 8, dtype=torch.float32).to(device)
    taps = random(8, 3, 3, dtype=torch.float32, seed=1).to(device)
    wanted = enlarged.enlarged_conv(image, taps, (4, 4))
    image[:, 40:] = torch.nan
    image[:, :, 60:] = torch.inf
    found = enlarged.enlarged_conv(image, taps, (4, 4))
    assert torch.equal(found[:, : 40 - 7, : 60 - 7], wanted[:, : 40 - 7, : 60 - 7])


@pytest.mark.parametrize("kibibytes", [227, 163, 99])
@pytest.mark.parametrize("step", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (8, 8), (1, 4), (16, 16)])
def test_tiles_fit_the_device(step, kibibytes, monkeypatch):
    monkeypatch.setattr(launch, "shared_memory", lambda device: kibibytes * 1024)
    tile = enlarged.tile_of(64, (7, 7), step, torch.device("cpu"))
    # Of a kernel as high as 8 x 8 pixels a tap, one block's rows take all that the largest device has.
    assert (tile is None) == (step == (16, 16) or (step == (8, 8) and kibibytes < 227))
    if tile is not None:
        assert tile.shared <= kibibytes * 1024
        assert tile.height % (2 * step[0]) == tile.width % (4 * step[1]) == 0


def test_a_smaller_device_takes_a_narrower_tile(emulated, monkeypatch):
    image, taps = random(1, 19, 45, 8, dtype=torch.float32), random(8, 7, 7, dtype=torch.float32, seed=1)
    wanted = dense_conv2d(image.double(), taps.double().unsqueeze(1), (4.0, 4.0))
    monkeypatch.setattr(launch, "shared_memory", lambda device: 99 * 1024)
    assert enlarged.tile_of(8, (7, 7), (4, 4), image.device).width == 16
    found = enlarged.enlarged_conv(image, taps, (4, 4))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_what_has_no_tile(emulated):
    here = torch.device("cpu")
    assert enlarged.tile_of(12, (7, 7), (2, 2), here) is None
    assert enlarged.tile_of(8, (15, 1), (1, 1), here) is None
    assert enlarged.tile_of(8, (1, 1), (3, 3), here) is None
    with pytest.raises(ValueError, match="no tile"):
        enlarged.enlarged_conv(random(1, 4, 4, 3, dtype=torch.float32), torch.ones(3, 7, 7), (2, 2))


@pytest.mark.parametrize("name", ["sparse_depthwise_conv2d", "sparse_depthwise_conv2d_backward"])
def test_opcheck(name, emulated):
    size = (8, 9)
    ids = all_points(2, size)
    features, taps = random(2, 72, 8, dtype=torch.float32), random(8, 1, 3, 3, dtype=torch.float32, seed=1)
    points, bias = ops.Points.of(ids, size, 3, (2.0, 2.0)), random(8, dtype=torch.float32, seed=2)
    if name == "sparse_depthwise_conv2d":
        given = (*(x.requires_grad_() for x in (features, taps)), *points, "auto", bias.requires_grad_())
    else:
        given = (features.clone(), features, taps, *points, "auto", True, True, True, features.clone())
    torch.library.opcheck(getattr(torch.ops.infdiff, name).default, given)
    assert {"enlarged_conv", "enlarged_conv_transposed"} & emulated.launched

"""The U-Net on grids."""

import pytest
import torch
import torch.nn.functional as F

from infdiff.benchmark.flops import flop_counter
from infdiff.models import GridUNet
from infdiff.nn.conv_block import Upsample
from tests.models.networks import GRID, randomise


@pytest.mark.parametrize("widen_in", ["blocks", "resampling"])
@pytest.mark.parametrize("size", [(8, 8), (12, 8), (7, 5)])
def test_unet_keeps_any_grid_size(size, widen_in):
    torch.manual_seed(0)
    unet = randomise(GridUNet(out_channels=3, condition_dim=4, widen_in=widen_in, **GRID))
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    assert unet(x, torch.ones(2, 4, dtype=torch.float64)).shape == (2, 3, *size)


def test_widths_change_between_levels_where_resampling_changes_them():
    """Down 8, 8, 16 at the levels' blocks, up 32, 16, 8; joined with the skip connections of the same level."""
    grid = GRID | {"multipliers": (1, 2, 4), "blocks": 2}
    unet = GridUNet(out_channels=3, condition_dim=4, widen_in="resampling", **grid)
    convs = {name: tuple(m.weight.shape[:2]) for name, m in unet.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert [convs[f"down.levels.{level}.0.conv_in"] for level in range(3)] == [(8, 8), (8, 8), (16, 16)]
    assert [convs[f"down.reductions.{level}.conv"] for level in range(2)] == [(8, 8), (16, 8)]
    assert convs["down.widen"] == (32, 16)
    assert [convs[f"levels.{level}.{block}.conv_in"] for level in range(3) for block in range(2)] == [
        *2 * [(32, 32 + 16)],
        *2 * [(16, 16 + 8)],
        *2 * [(8, 8 + 8)],
    ]
    assert [convs[f"enlargements.{level}.conv"] for level in range(2)] == [(16, 32), (8, 16)]


@pytest.mark.parametrize("widen_in", ["blocks", "resampling"])
def test_gradients_reach_every_parameter(widen_in):
    torch.manual_seed(0)
    unet = randomise(GridUNet(out_channels=3, condition_dim=4, widen_in=widen_in, **GRID))
    x = torch.randn(2, 8, 7, 5, dtype=torch.float64)
    unet(x, torch.ones(2, 4, dtype=torch.float64)).square().mean().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_features_are_narrowed_and_smoothed_on_the_smaller_grid():
    x = torch.randn(2, 6, 3, 4)
    narrowing, smoothing = Upsample(6, 3), Upsample(6, 6)
    with flop_counter() as counter:
        narrowed = narrowing(x, (5, 7))
    assert counter.get_total_flops() == 2 * 2 * 9 * 6 * 3 * 3 * 4
    torch.testing.assert_close(narrowed, F.interpolate(narrowing.conv(x), (5, 7)))
    with flop_counter() as counter:
        assert smoothing(x, (5, 7)).shape == (2, 6, 5, 7)
    assert counter.get_total_flops() == 2 * 2 * 9 * 6 * 6 * 5 * 7
    x = torch.randn(2, 6, 16, 18)
    with flop_counter() as counter:
        smoothed = smoothing(x, (32, 36))
    assert counter.get_total_flops() == 2 * 2 * 4 * 6 * 6 * 32 * 36
    torch.testing.assert_close(smoothed, smoothing.conv(F.interpolate(x, scale_factor=2)))


def test_checkpoints_keep_their_names_and_optimisers_their_order():
    unet = GridUNet(out_channels=3, condition_dim=4, **GRID)
    assert [name for name, _ in unet.named_children()] == [
        "down",
        "middle",
        "layout",
        "levels",
        "enlargements",
        "conv_out",
    ]
    assert [name for name, _ in unet.down.named_children()] == ["conv_in", "levels", "reductions"]
    block = ["norm_in", "conv_in", "norm_out", "conv_out", "skip", "attention"]
    assert [name for name, _ in unet.middle[0].named_children()] == block

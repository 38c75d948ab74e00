"""The U-Net on grids."""

import pytest
import torch

from infdiff.models import GridUNet
from tests.models.networks import GRID, randomise


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (7, 5)])
def test_unet_keeps_any_grid_size(size):
    torch.manual_seed(0)
    unet = randomise(GridUNet(out_channels=3, condition_dim=4, **GRID))
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    assert unet(x, torch.ones(2, 4, dtype=torch.float64)).shape == (2, 3, *size)


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

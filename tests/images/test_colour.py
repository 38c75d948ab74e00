"""Pictures of fields: values in the order of the colours, holes grey, a bar with the limits."""

import matplotlib
import numpy as np
import pytest
import torch

from infdiff.images.colour import COLOUR_MAP, coloured, picture


def test_colours_are_those_of_the_map():
    ramp = torch.linspace(-2, 6, 256).view(1, 1, 16, 16)
    out = coloured(ramp, [(-2, 6)])
    expected = (matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round()
    assert out.shape == (1, 3, 16, 16)
    assert (out[0].permute(1, 2, 0).reshape(-1, 3).numpy() == expected).all()


def test_values_beyond_the_limits_have_the_colours_of_the_ends():
    out = coloured(torch.tensor([-9.0, 0, 1, 9]).view(1, 1, 1, 4), [(0, 1)])[0, :, 0]
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 2], out[:, 3])


def test_channels_are_panels_with_limits_of_their_own_and_three_are_rgb():
    field = torch.stack([torch.full((4, 5), 1.0), torch.full((4, 5), 100.0)])[None]
    out = coloured(field, [(1, 2), (100, 200)])
    assert out.shape == (1, 3, 4, 10)
    assert torch.equal(out[..., :5], out[..., 5:])
    rgb = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    assert coloured(rgb, [(0, 1)]).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_missing_pixels_are_grey(channels):
    field = torch.zeros(1, channels, 2, 2)
    field[0, :, 0, 0] = torch.nan
    assert coloured(field, [(0, 1)])[0, :, 0, 0].tolist() == [190, 190, 190]
    assert coloured(field, [(0, 1)])[0, :, 1, 0].tolist() != [190, 190, 190]


def test_a_picture_has_a_panel_and_a_bar_for_each_channel():
    field = torch.linspace(0, 1, 16 * 20).view(1, 16, 20)
    one = picture(field, [(0, 1)], ["rain (mm/h)"])
    two = picture(field.expand(2, -1, -1), [(0, 1), (0, 1)], ["a", "b"])
    assert two.shape == (3, one.shape[1], 2 * one.shape[2])
    assert torch.equal(
        one[:, 14:, :160], coloured(field[None], [(0, 1)])[0].repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    bar = one[:, 14:, 165].T.tolist()
    assert bar[0] == coloured(torch.ones(1, 1, 1, 1), [(0, 1)]).flatten().tolist()
    assert bar[-1] == coloured(torch.zeros(1, 1, 1, 1), [(0, 1)]).flatten().tolist()
    assert (one[:, :14] < 128).any(), "a label"
    assert picture(field.expand(3, -1, -1), [(0, 1)], ["r", "g", "b"]).shape == (3, 128, 160)
    constant = picture(torch.full((1, 200, 200), 5.0), [(5, 5)], ["c"])
    assert constant.shape[1] == 214

"""How the taps of sparse convolutions start."""

import pytest
import torch

from infdiff.nn.initial_taps import INITIAL_TAPS, initial_taps


def drawn(kind, channels=64, inputs=1, kernel_size=7, seed=0):
    torch.manual_seed(seed)
    return initial_taps(kind, channels, inputs, kernel_size)


@pytest.mark.parametrize("kind", INITIAL_TAPS)
@pytest.mark.parametrize(("inputs", "kernel_size"), [(1, 7), (1, 1), (5, 3)])
def test_taps_have_the_shape_of_a_convolution_and_are_drawn_from_the_seed(kind, inputs, kernel_size):
    taps = drawn(kind, 6, inputs, kernel_size)
    assert taps.shape == (6, inputs, kernel_size, kernel_size)
    assert taps.dtype == torch.float32
    assert torch.equal(taps, drawn(kind, 6, inputs, kernel_size))
    if kernel_size > 1:
        assert not torch.equal(taps, drawn(kind, 6, inputs, kernel_size, seed=1))


def test_smooth_taps_are_averages_and_every_fourth_a_difference_of_two():
    """An average gives a constant back; a difference takes it away."""
    total = drawn("smooth").sum(dim=(1, 2, 3))
    difference = torch.arange(64) % 4 == 2
    torch.testing.assert_close(total[difference], torch.zeros(16), rtol=0, atol=1e-6)
    torch.testing.assert_close(total[~difference], torch.ones(48))


def test_smooth_taps_vary_less_from_one_to_the_next_than_those_drawn_one_by_one():
    def roughness(taps):
        return float(taps.diff(dim=-1).square().sum() / taps.square().sum())

    wide = drawn("smooth")[drawn("smooth").flatten(1).amax(dim=1) < 0.1]
    assert len(wide) > 10
    assert roughness(wide) < 0.3
    assert roughness(drawn("noise")) > 1.2


def test_every_second_smooth_average_has_its_centre_elsewhere():
    taps = drawn("smooth")[:, 0]
    offset = torch.arange(7) - 3.0
    centre = (taps.sum(dim=2) @ offset).abs()
    assert centre[0::4].max() < 1e-5
    assert centre[1::2].median() > 0.2


def test_unknown_taps_are_refused():
    with pytest.raises(ValueError, match=r"'rough'.*noise, smooth"):
        initial_taps("rough", 1, 1, 3)

"""The loss at one noise level, of both methods."""

import pytest
import torch
from torch import nn

from infdiff.config.files import load_config
from infdiff.methods.method import Method, method_of
from tests.conftest import TINY, TINY_GRID

GREY = 178  # of 255: 0.396 in [-1, 1]


class Nothing(nn.Module):
    """A denoiser that says 0."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[int] = []

    def geometry(self, ids, size):
        self.points.append(ids.shape[1])

    def forward(self, x, *others):
        return torch.zeros_like(x)


def methods() -> list[Method]:
    points = [*TINY, "model.z_dim=0", "model.sketch_side=0", "diffusion.target=v"]
    return [method_of(load_config("demo", points)), method_of(load_config("dfu_landscapes_64", TINY_GRID))]


@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("method", methods(), ids=["infinity_diff", "edm"])
def test_of_a_constant_and_a_network_without_an_answer_it_is_known(method, noise):
    """v = (n - noise y) / sqrt(1 + noise^2) in units of either's standard deviation: both methods' target."""
    images = torch.full((64, 3, 16, 16), GREY, dtype=torch.uint8)
    loss = method.objective_at(noise, 1)({"denoiser": Nothing()}, images, torch.Generator().manual_seed(0))
    std = method.config.diffusion.data_std if method.config.method == "infinity_diff" else method.config.edm.data_std
    y = (GREY / 127.5 - 1) / std
    # The schedule has a time within 2 % of the noise asked for.
    assert float(loss) == pytest.approx((1 + (noise * y) ** 2) / (1 + noise**2), rel=0.03)


def test_it_reads_as_many_points_as_asked():
    method, network = methods()[0], Nothing()
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    for rate in (1, 4, 16):
        method.objective_at(1.0, rate)({"denoiser": network}, images, torch.Generator().manual_seed(0))
    assert network.points == [256, 64, 16]


def test_rates_are_all_pixels_and_those_trained_on():
    method = method_of(load_config("demo", [*TINY, "train.subsample={2: 1, 8: 3}"]))
    assert method.rates == (1, 2, 8)
    assert methods()[1].rates == (1,)

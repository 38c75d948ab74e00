"""FLOP, against counts by hand."""

import pytest
import torch
from torch import nn

from infdiff import ops
from infdiff.benchmark import flops
from infdiff.benchmark.flops import flop_of
from infdiff.models import SparseUNet
from infdiff.nn.attention import GridAttention
from infdiff.ops.nearest_points import nearest_points
from infdiff.points import all_points, draw_points

BATCH, CHANNELS, SIDE, POINTS, K = 2, 3, 16, 64, 5


@pytest.fixture
def ids(generator):
    return draw_points(BATCH, POINTS, (SIDE, SIDE), generator)


def conv(ids, size, scale=(1.0, 1.0), trained=("features", "taps")):
    features = torch.randn(*ids.shape, CHANNELS, requires_grad="features" in trained)
    taps = torch.randn(CHANNELS, 1, K, K, requires_grad="taps" in trained)
    return ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, size, K, scale))


def test_depthwise_convolution_of_a_quarter_of_the_pixels_reads_a_quarter_of_its_window(ids):
    # 2 images x 64 points x 3 channels, a window of 25 places of which a quarter are points.
    forward = 2 * 2 * 64 * 3 * 25 // 4
    assert flop_of(lambda: conv(ids, (SIDE, SIDE))) == forward
    assert flop_of(lambda: conv(ids, (SIDE, SIDE)).sum().backward()) == 3 * forward
    assert flop_of(lambda: conv(ids, (SIDE, SIDE), trained=["taps"]).sum().backward()) == 2 * forward


@pytest.mark.parametrize("backend", ["lattice", "dense"])
def test_it_counts_what_is_defined_whatever_route_is_taken(ids, backend):
    features, taps = torch.randn(*ids.shape, CHANNELS), torch.randn(CHANNELS, 1, K, K)
    points = ops.Points.of(ids, (SIDE, SIDE), K)
    assert flop_of(lambda: ops.sparse_depthwise_conv2d(features, taps, points, backend)) == 2 * 2 * 64 * 3 * 25 // 4


@pytest.mark.parametrize(
    ("scale", "multiply_adds"),
    [
        ((1.0, 1.0), 5 * 5),  # as conv2d: the taps
        ((2.0, 2.0), 3 + 3 + 5 * 5),  # a tent of 3 along rows and columns, then the taps
        ((4.0, 4.0), 7 + 7 + 5 * 5),
        ((1.5, 1.5), 5 * (9 + 3)),  # for each of 5 rows: 9 places across, a tent of 3 down; direct are 81
    ],
)
def test_on_all_pixels_an_enlarged_kernel_costs_its_cheapest_algorithm(scale, multiply_adds):
    ids = all_points(BATCH, (SIDE, SIDE))
    assert flop_of(lambda: conv(ids, (SIDE, SIDE), scale)) == 2 * BATCH * SIDE**2 * CHANNELS * multiply_adds


def test_moving_between_points_and_grid(ids):
    size, grid = (SIDE, SIDE), (4, 8)
    near = nearest_points(ids, size, grid)
    features = torch.randn(*ids.shape, CHANNELS, requires_grad=True)
    cells = torch.randn(BATCH, CHANNELS, *grid, requires_grad=True)
    to_grid, from_grid = 2 * 3 * BATCH * 32 * CHANNELS, 2 * 4 * BATCH * POINTS * CHANNELS
    assert flop_of(lambda: ops.points_to_grid(features, near)) == to_grid
    assert flop_of(lambda: ops.points_to_grid(features, near).sum().backward()) == 2 * to_grid
    assert flop_of(lambda: ops.grid_to_points(cells, ids, size)) == from_grid
    assert flop_of(lambda: ops.grid_to_points(cells, ids, size).sum().backward()) == 2 * from_grid


def test_attention_on_this_device():
    attention = GridAttention(8)
    x = torch.randn(BATCH, 8, 4, 4)
    # qkv and out: 16 cells x (3 x 8 + 8) x 8; scores and their use: 16 x 16 x 8 each.
    expected = 2 * BATCH * (16 * 32 * 8 + 2 * 16 * 16 * 8)
    assert flop_of(lambda: attention(x)) == expected
    with torch.no_grad():
        assert flop_of(lambda: attention(x)) == expected
    # Backward: twice the linear maps; of attention five products, the scores again among them.
    expected += 2 * BATCH * (2 * 16 * 32 * 8 + 5 * 16 * 16 * 8)
    assert flop_of(lambda: attention(x.requires_grad_()).sum().backward()) == expected


def test_a_sparse_network_added_up_by_hand(ids):
    class Nothing(nn.Module):
        def forward(self, x, condition):
            return x

    network = SparseUNet(
        Nothing(), base=(SIDE, SIDE), grid=(8, 8), channels=4, kernel_size=3, blocks=1, condition_dim=8, z_dim=0
    )
    geometry = network.geometry(ids, (SIDE, SIDE))
    x, t = torch.randn(*ids.shape, 3), torch.ones(BATCH, dtype=torch.long)
    of_points = 15 * 4 + 2 * (4 * 8 + 8 * 4) + 8 * 4 + 4 * 3  # lift, two MLPs, merge, project
    of_images = 128 * 8 + 8 * 8 + 2 * 8 * 8  # time, and the modulation of two norms
    convolutions = 2 * 4 * 9 // 4  # of two blocks, on a quarter of the pixels
    grid = 64 * 4 * 3 + POINTS * 4 * 4  # to 64 cells and back
    expected = BATCH * (POINTS * (of_points + convolutions) + of_images + grid)
    assert flop_of(lambda: network(x, geometry, t)) == 2 * expected


def test_a_compiled_module_counts_as_the_same_module():
    linear = nn.Linear(4, 5)
    linear.compile(backend="eager")
    assert flop_of(lambda: linear(torch.randn(3, 4))) == 2 * 3 * 4 * 5


def test_every_operator_is_counted_or_said_not_to_be():
    registered = {
        name.removeprefix("infdiff::").split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("infdiff::")
    }
    assert registered == {*flops.OPERATORS, *flops.UNCOUNTED}

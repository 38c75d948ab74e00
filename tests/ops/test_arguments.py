"""Arguments that do not fit are named; nothing is computed from them."""

import pytest
import torch

from infdiff import ops

SIZE = (4, 5)
IDS = torch.tensor([[1, 3, 7, 19], [0, 2, 4, 6]])


def conv(*, features=None, taps=None, backend="auto", **changed):
    features = torch.randn(2, 4, 3) if features is None else features
    taps = torch.randn(3, 1, 3, 3) if taps is None else taps
    points = ops.Points.of(IDS, SIZE, 3)._replace(**changed)
    return ops.sparse_depthwise_conv2d(features, taps, points, backend)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(2, 5, 3)}, r"features \(2, 5, 3\) do not go with ids"),
        ({"features": torch.zeros(2, 4)}, "features"),
        ({"features": torch.zeros(2, 4, 3, dtype=torch.int64)}, "features are torch.int64: want a floating type"),
        ({"taps": torch.zeros(3, 1, 4, 4)}, "k odd"),
        ({"taps": torch.zeros(3, 1, 3, 5)}, "k odd"),
        ({"taps": torch.zeros(3, 1, 65, 65)}, "k is at most 63"),
        ({"taps": torch.zeros(2, 1, 3, 3)}, "3 channels"),
        ({"taps": torch.zeros(3, 3, 3, 3)}, "3 channels"),
        ({"ids": IDS.int()}, "ids .*int32.* want .*int64"),
        ({"ids": IDS[0]}, r"ids \(4,\)"),
        ({"ids": torch.zeros(2, 0, dtype=torch.int64)}, "ids hold 0 points"),
        ({"ids": torch.zeros(2, 21, dtype=torch.int64)}, "ids hold 21 points of an image of 4x5"),
        ({"scale": (1.0, 0.0)}, "scale"),
        (
            {"index": torch.zeros(2, 4, 5)},
            r"index \(2, 4, 5\) torch.float32: want \(2, 4, 5\) or \(8, 9\) of torch.int32",
        ),
        ({"index": torch.zeros(2, 5, 4, dtype=torch.int32)}, r"index \(2, 5, 4\)"),
        ({"index": torch.zeros(8, 9, dtype=torch.int32), "scale": (2.0, 1.0)}, "neighbour table, which knows no scale"),
        ({"inverse_count": torch.zeros(2, 5, 1)}, r"inverse_count \(2, 5, 1\): want \(2, 4, 1\)"),
        ({"backend": "magic"}, "backend 'magic': choose one of auto, lattice, torchsparse, dense"),
        ({"taps": torch.zeros(3, 1, 3, 3, device="meta")}, "taps is on meta, the features are on cpu"),
    ],
)
def test_shapes_and_types(change, message):
    with pytest.raises(ValueError, match=message):
        conv(**change)


BAD_ORDER = [
    (torch.tensor([[1, 3, 3, 19], [0, 2, 4, 6]]), "ids must ascend in each row, without repeats"),
    (torch.tensor([[1, 3, 7, 19], [0, 4, 2, 6]]), "ids must ascend in each row, without repeats"),
    (torch.tensor([[1, 3, 7, 20], [0, 2, 4, 6]]), "ids out of range: pixels of a 4x5 image are 0 to 19"),
    (torch.tensor([[-1, 3, 7, 19], [0, 2, 4, 6]]), "ids out of range"),
]


@pytest.mark.parametrize(("ids", "message"), BAD_ORDER)
@pytest.mark.parametrize(
    "operator",
    [
        lambda ids: ops.Points.of(ids, SIZE, 3),
        lambda ids: ops.Points.of(ids, SIZE, 3, (2.0, 1.5)),
        lambda ids: ops.lattice_index(ids, SIZE),
        lambda ids: ops.inverse_count(ids, SIZE, 3, (1.0, 1.0)),
        lambda ids: ops.nearest_points(ids, SIZE, (2, 2)),
    ],
    ids=["points", "points at a scale", "lattice_index", "inverse_count", "nearest_points"],
)
def test_repeated_unsorted_and_strange_ids(operator, ids, message):
    with pytest.raises(ValueError, match=message):
        operator(ids)


def test_regular_taps_that_do_not_fit():
    with pytest.raises(ValueError, match="3 channels"):
        ops.sparse_conv2d(torch.zeros(2, 4, 3), torch.zeros(5, 2, 3, 3), ops.Points.of(IDS, SIZE, 3))


def test_interpolation():
    near = ops.nearest_points(IDS, SIZE, (2, 2))
    with pytest.raises(ValueError, match=r"features \(2, 5, 3\)"):
        ops.points_to_grid(torch.zeros(2, 5, 3), near)
    with pytest.raises(ValueError, match=r"grid \(1, 3, 2, 2\)"):
        ops.grid_to_points(torch.zeros(1, 3, 2, 2), IDS, SIZE)
    with pytest.raises(ValueError, match="ids"):
        ops.grid_to_points(torch.zeros(2, 3, 2, 2), IDS.int(), SIZE)

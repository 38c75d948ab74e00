"""Few points in many pixels, on a CPU: neighbours found without an image of the pixels, and the same numbers."""

import importlib

import pytest
import torch

from infdiff import ops
from infdiff.nn.geometry import Geometry
from infdiff.ops import convolution_routes, nearest_search
from infdiff.ops.inverse_count import inverse_count_ref
from infdiff.ops.nearest_points import nearest_points_ref
from infdiff.ops.row_pairs import bisects, row_pairs
from infdiff.points import draw_points

CASES = [
    ((128, 128), 100, (16, 16)),
    ((100, 333), 200, (9, 31)),
    ((64, 640), 40, (64, 64)),
    ((64, 64), 1, (4, 4)),
    ((64, 64), 2, (4, 4)),
    ((17, 900), 30, (5, 7)),
    ((256, 64), 256, (32, 8)),
]


@pytest.mark.parametrize("window", [(1, 1), (3, 5), (31, 9)])
def test_the_pairs_are_those_within_the_window(window, generator):
    size, count = (40, 70), 30
    ids = draw_points(2, count, size, generator)
    expected = set()
    for image in range(2):
        for a, p in enumerate(ids[image].tolist()):
            for b, q in enumerate(ids[image].tolist()):
                down, across = q // 70 - p // 70 + window[0] // 2, q % 70 - p % 70 + window[1] // 2
                if 0 <= down < window[0] and 0 <= across < window[1]:
                    expected.add((down, image * count + a, image * count + b, across))
    found = [
        (pairs.row, *entry)
        for pairs in row_pairs(ids, size, window)
        for entry in zip(pairs.of.tolist(), pairs.near.tolist(), pairs.column.tolist(), strict=True)
    ]
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize(("size", "count", "grid"), CASES)
@pytest.mark.parametrize("kind", ["uniform", "stratified"])
def test_nearest_points_are_those_of_all_distances(size, count, grid, kind, generator):
    ids = draw_points(3, count, size, generator, kind)
    assert bisects(ids, size)
    found, expected = ops.nearest_points(ids, size, grid), nearest_points_ref(ids, size, grid)
    for name in ("number", "weight", "share", "reach"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_points_in_a_corner_are_found_from_everywhere():
    size, grid = (96, 160), (6, 10)
    corner = torch.tensor([[160 * row + column for row in range(10) for column in range(12)]])
    found, expected = ops.nearest_points(corner, size, grid), nearest_points_ref(corner, size, grid)
    assert torch.equal(found.number, expected.number)
    assert torch.equal(found.weight, expected.weight)


def test_most_centres_need_no_distance_to_all_points(generator, monkeypatch):
    compared = []
    real = nearest_search.among_all
    monkeypatch.setattr(
        nearest_search,
        "among_all",
        lambda ids, size, grid, rest: compared.append(len(rest)) or real(ids, size, grid, rest),
    )
    ids = draw_points(2, 1000, (512, 512), generator)
    ops.nearest_points(ids, (512, 512), (32, 32))
    assert sum(compared) < 0.01 * 2 * 32 * 32


@pytest.mark.parametrize(("kernel_size", "scale"), [(3, (1.0, 1.0)), (5, (2.5, 1.3)), (7, (0.5, 4.0)), (9, (8.0, 8.0))])
def test_the_normaliser_is_that_of_the_filtered_mask(kernel_size, scale, generator):
    size = (90, 120)
    ids = draw_points(2, 150, size, generator)
    found = ops.inverse_count(ids, size, kernel_size, scale, dtype=torch.float64)
    torch.testing.assert_close(found, inverse_count_ref(ids, size, kernel_size, scale, dtype=torch.float64))


@pytest.mark.parametrize(("kernel_size", "scale"), [(3, (1.0, 1.0)), (15, (1.0, 1.0)), (5, (4.0, 2.0))])
def test_convolutions_are_the_specification_with_their_gradients(kernel_size, scale, generator):
    size = (64, 100)
    ids = draw_points(2, 90, size, generator)
    points = ops.Points.of(ids, size, kernel_size, scale, torch.float64)
    assert points.index is None
    features = torch.randn(2, 90, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    taps = torch.randn(4, 1, kernel_size, kernel_size, dtype=torch.float64, generator=generator, requires_grad=True)
    results = []
    for convolve in (ops.sparse_depthwise_conv2d, ops.sparse_depthwise_conv2d_ref):
        out = convolve(features, taps, points)
        results.append((out, *torch.autograd.grad((out * torch.arange(4)).square().sum(), (features, taps))))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_no_image_of_the_pixels_is_made(generator, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("an image of the pixels was made")

    for module in ("point_set", "nearest_points", "convolution_routes", "grid_to_points", "lattice_index"):
        monkeypatch.setattr(importlib.import_module(f"infdiff.ops.{module}"), "lattice_index", refuse)
    monkeypatch.setattr(importlib.import_module("infdiff.ops.inverse_count"), "inverse_count_ref", refuse)
    monkeypatch.setattr(convolution_routes, "rows_to_image", refuse)
    size = (1000, 1200)
    ids = draw_points(1, 500, size, generator)
    geometry = Geometry.of(ids, size, base=size, kernel_size=5, grid=(16, 16))
    features = torch.randn(1, 500, 8, generator=generator, requires_grad=True)
    out = ops.sparse_depthwise_conv2d(features, torch.randn(8, 1, 5, 5, generator=generator), geometry.points)
    grid = ops.points_to_grid(out, geometry.neighbours)
    ops.grid_to_points(grid, ids, size, geometry.points.index).sum().backward()
    assert features.grad.isfinite().all()

"""The routes of the operators: those named are those taken."""

import importlib

import pytest
import torch

from infdiff import ops
from infdiff.ops.gpu import launch
from infdiff.ops.routing import choose_route, route_of
from infdiff.points import draw_points


def test_routes_follow_device_density_and_wish(emulated, monkeypatch):
    size = (64, 64)

    def route(count, *, scale=(1.0, 1.0), backend="auto", dtype=torch.float32):
        return choose_route(torch.zeros(1, count, 4, dtype=dtype), size, 7, scale, backend).name

    assert route(1024) == "kernels"
    assert route(4096) == "dense kernels"
    assert route(1024, backend="dense") == "dense kernels"
    assert route(1024, scale=(20.0, 20.0)) == "dense kernels"
    assert route(1024, dtype=torch.float64) == "dense"
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    assert route(1024) == route(4096) == "dense"
    assert route(16) == "lattice"
    assert route(1024, backend="lattice") == "lattice"


@pytest.mark.parametrize("backend", ["auto", "lattice", "dense", "torchsparse"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("count", [7, 64, 256])
def test_the_route_named_for_regular_taps_is_the_one_taken(backend, scale, count, generator, monkeypatch):
    taken = []
    module = importlib.import_module("infdiff.ops.sparse_conv2d")

    def dense(image, taps, scale):
        taken.append("dense")
        return image

    def torchsparse(features, taps, voxels):
        taken.append("torchsparse")
        return features

    monkeypatch.setattr(module, "dense_conv2d", dense)
    monkeypatch.setattr(module.torchsparse_backend, "conv2d", torchsparse)
    ids = draw_points(1, count, (16, 16), generator)
    features, taps = torch.randn(1, count, 2, generator=generator), torch.randn(2, 2, 3, 3, generator=generator)
    ops.sparse_conv2d(features, taps, ops.Points.of(ids, (16, 16), 3, (scale, scale)), backend, voxels=object())
    route = route_of("sparse_conv2d", features, (16, 16), 3, (scale, scale), backend)
    assert route.name == (taken or ["lattice"])[0]


def test_routes_of_operators_without_kernels_of_their_own(emulated):
    size = (16, 16)
    few, everything = torch.zeros(1, 7, dtype=torch.int64), torch.zeros(1, 256, dtype=torch.int64)

    def name(*arguments, **options):
        return route_of(*arguments, **options).name

    assert name("lattice_index", few, size) == name("inverse_count", few, size, 7) == "kernels"
    assert name("inverse_count", everything, size, 7) == "PyTorch"
    assert name("inverse_count", few, size, 7, (20.0, 20.0)) == "PyTorch"
    assert name("resize_kernel", torch.zeros(3, 7, 7), size) == "PyTorch"
    assert name("points_to_grid", torch.zeros(1, 7, 4), size) == "kernels"
    assert route_of("points_to_grid", torch.zeros(1, 7, 4).double(), size) == (
        "PyTorch",
        "kernels do not take torch.float64",
    )

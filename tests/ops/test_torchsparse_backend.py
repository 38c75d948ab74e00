"""The TorchSparse backend: our kernels on its kernel map, and its own convolution.

Without a GPU it runs against a stand-in that follows TorchSparse's sources (fake_torchsparse.py); with one and
TorchSparse installed, against the real thing.
"""

import importlib
import importlib.abc
import sys

import pytest
import torch

from infdiff import ops
from infdiff.config.files import changed, load_config, save_config
from infdiff.methods.checks import backend_note
from infdiff.nn.geometry import Geometry
from infdiff.nn.sparse_block import SparseConv
from infdiff.ops import torchsparse_backend
from infdiff.ops.routing import route_of
from infdiff.points import draw_points
from tests.conftest import copy_of
from tests.ops import fake_torchsparse

SIZE = (9, 12)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "fake":
        request.getfixturevalue("emulated")
        fake_torchsparse.install(monkeypatch)
        return torch.device("cpu")
    if missing := torchsparse_backend.why_missing():
        pytest.skip(missing)
    return torch.device("cuda")


@pytest.fixture
def ids(device):
    return draw_points(2, 50, SIZE, torch.Generator().manual_seed(0)).to(device)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_table_lists_the_neighbours_of_the_lattice(k, device, ids):
    table = ops.neighbour_table(ops.Voxels.of(ids, SIZE), k)
    assert table.dtype == torch.int32
    positions = [[divmod(i, SIZE[1]) for i in row] for row in ids.tolist()]
    number = {(b, *place): b * 50 + n for b, row in enumerate(positions) for n, place in enumerate(row)}
    half = k // 2
    for (b, row, column), n in number.items():
        window = [(b, row + i - half, column + j - half) for i in range(k) for j in range(k)]
        assert table[n].tolist() == [number.get(place, -1) for place in window]


def test_a_table_is_made_once(device, ids):
    voxels = ops.Voxels.of(ids, SIZE)
    assert ops.neighbour_table(voxels, 3) is ops.neighbour_table(voxels, 3)
    assert ops.neighbour_table(voxels, 5) is not ops.neighbour_table(voxels, 3)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_depthwise_on_its_table_is_depthwise_on_the_lattice(k, device, ids):
    points = ops.Points.of(ids, SIZE, k)
    table = ops.neighbour_table(ops.Voxels.of(ids, SIZE), k)
    generator = torch.Generator().manual_seed(1)
    features, grad = (torch.randn(2, 50, 8, generator=generator).to(device) for _ in range(2))
    taps = torch.randn(8, 1, k, k, generator=generator).to(device)
    results = []
    for index, backend in ((table, "torchsparse"), (points.index, "lattice")):
        inputs = [features.clone().requires_grad_(), taps.clone().requires_grad_()]
        out = ops.sparse_depthwise_conv2d(*inputs, points._replace(index=index), backend)
        results.append((out, *torch.autograd.grad(out, inputs, grad)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_its_own_convolution_is_the_regular_one(k, device, ids):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 50, 4, generator=generator).to(device).requires_grad_()
    taps = torch.randn(6, 4, k, k, generator=generator).to(device).requires_grad_()
    points = ops.Points.of(ids, SIZE, k)
    out = ops.sparse_conv2d(features, taps, points, "torchsparse")
    expected = ops.sparse_conv2d_ref(features, taps, points)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)
    got, want = (torch.autograd.grad(o.square().sum(), (features, taps)) for o in (out, expected))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("base", [SIZE, (3, 6)])
def test_blocks_take_it_and_give_the_same(depthwise, base, device, ids, generator):
    plain = SparseConv(8, 3, depthwise=depthwise).to(device)
    other = SparseConv(8, 3, depthwise=depthwise, backend="torchsparse").to(device)
    other.load_state_dict(plain.state_dict())
    features = torch.randn(2, 50, 8, generator=generator).to(device)
    outputs = [
        conv(features, Geometry.of(ids, SIZE, base=base, kernel_size=3, grid=(4, 4), backend=conv.backend))
        for conv in (plain, other)
    ]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(torchsparse_backend.why_missing() is None, reason="TorchSparse is installed")
def test_where_it_is_missing_it_says_so():
    assert "TorchSparse is not installed" in torchsparse_backend.why_missing()
    with pytest.raises(RuntimeError, match="pip install --no-build-isolation 'infdiff\\[torchsparse\\]'"):
        ops.Voxels.of(torch.arange(4).view(1, 4), (2, 2))


class Broken(importlib.abc.MetaPathFinder):
    """A TorchSparse that is installed and raises when it is imported."""

    def __init__(self, problem):
        self.problem = problem

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchsparse":
            raise self.problem


@pytest.mark.parametrize(
    "problem",
    [
        ImportError("backend.so: undefined symbol: _ZN3c10\nmore"),
        RuntimeError("no kernel\nfor this device"),
        AssertionError("Torch not compiled with CUDA enabled"),
        OSError("libcudart.so.11.0: cannot open shared object file"),
    ],
    ids=lambda problem: type(problem).__name__,
)
@pytest.mark.parametrize("cuda", [True, False])
def test_one_that_does_not_load_is_one_line(problem, cuda, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchsparse"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(problem), *sys.meta_path])
    monkeypatch.setattr(torchsparse_backend, "version", lambda name: "2.1.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    said = torchsparse_backend.why_missing()
    assert "\n" not in said
    if cuda:
        assert f"TorchSparse does not load ({type(problem).__name__}: {str(problem).splitlines()[0]})" in said
        assert "--no-build-isolation" in said
    else:
        assert said == "TorchSparse needs a CUDA device, and PyTorch sees none"
    with pytest.raises(RuntimeError, match="backend 'torchsparse': TorchSparse") as error:
        ops.Voxels.of(torch.arange(4).view(1, 4), (2, 2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_without_kernels_its_table_is_read_tap_by_tap(k, dtype, monkeypatch):
    """Against the specification, which knows no table; and the lattice index is not built."""
    fake_torchsparse.install(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    ids = draw_points(2, 50, SIZE, generator)
    features, grad = (torch.randn(2, 50, 8, generator=generator).to(dtype) for _ in range(2))
    taps = torch.randn(8, 1, k, k, generator=generator).to(dtype)
    table = ops.neighbour_table(ops.Voxels.of(ids, SIZE), k)
    points = ops.Points.of(ids, SIZE, k, dtype=torch.promote_types(dtype, torch.float32))._replace(index=table)

    def refuse(*arguments):
        raise AssertionError("the lattice index was built")

    results = []
    for operator in (ops.sparse_depthwise_conv2d_ref, ops.sparse_depthwise_conv2d):
        work = torch.float64 if operator is ops.sparse_depthwise_conv2d_ref else dtype
        inputs = [features.to(work, copy=True).requires_grad_(), taps.to(work, copy=True).requires_grad_()]
        out = operator(*inputs, points, "torchsparse")
        results.append([t.double() for t in (out, *torch.autograd.grad(out, inputs, grad.to(work)))])
        monkeypatch.setattr(importlib.import_module("infdiff.ops.convolution_routes"), "lattice_index", refuse)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.02}[dtype]
    for expected, found in zip(*results, strict=True):
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_the_route_and_its_reason_are_said():
    def said(scale, depthwise):
        tensor = torch.zeros(1, 50, 4)
        return route_of(f"sparse{'_depthwise' * depthwise}_conv2d", tensor, SIZE, 3, scale, "torchsparse")

    assert said((1.0, 1.0), True) == ("lattice", "through TorchSparse's neighbour table")
    assert said((1.0, 1.0), False) == ("torchsparse", "asked for")
    assert said((2.0, 1.0), True) == ("lattice", "TorchSparse knows no kernels of another scale than 1")
    assert said((2.0, 1.0), False) == ("dense", "TorchSparse knows no kernels of another scale than 1")


def test_sampling_says_so(command, points_run, tmp_path, monkeypatch):
    fake_torchsparse.install(monkeypatch)
    monkeypatch.setattr(importlib.import_module("infdiff.methods.infinity_diff"), "why_missing", lambda: None)
    run = copy_of(points_run, tmp_path)
    settings = load_config(run / "config.yaml")
    save_config(changed(settings, {"model.backend": "torchsparse"}), run / "config.yaml")
    said = {}
    for size in (16, 24):
        result = command("sample", "--run", run, "--res", size, "--steps", 2, "--device", "cpu")
        assert result.returncode == 0, result.stderr
        said[size] = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert said[16] == []
    assert len(said[24]) == 1
    assert "at 24 pixels, where data.size is 16, model.backend: lattice takes its place" in said[24][0]


@pytest.mark.parametrize(("depthwise", "instead"), [(True, "lattice"), (False, "dense")])
def test_a_note_says_what_takes_its_place_at_other_sizes(depthwise, instead):
    config = load_config("demo", ["model.backend=torchsparse", f"model.depthwise={depthwise}"])
    note = backend_note(config, [(64, 64), (96, 128)])
    assert note.startswith("model.backend: torchsparse: ")
    assert f"at 96x128 pixels, where data.size is 64, model.backend: {instead} takes its place" in note
    assert "\n" not in note
    assert backend_note(config, [(64, 64)]) is None
    assert backend_note(load_config("demo"), [(96, 128)]) is None
    assert backend_note(load_config("dfu_landscapes_64"), [(96, 128)]) is None

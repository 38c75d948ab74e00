"""The TorchSparse backend: our kernels on its kernel map, and its own convolution.

Without a GPU it runs against a stand-in that follows TorchSparse's sources (fake_torchsparse.py); with one and
TorchSparse installed, against the real thing.
"""

import pytest
import torch

from infdiff import ops
from infdiff.nn.geometry import Geometry
from infdiff.nn.sparse_block import SparseConv
from infdiff.ops import torchsparse_backend
from infdiff.points import draw_points
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
    with pytest.raises(RuntimeError, match="pip install 'infdiff\\[torchsparse\\]'"):
        ops.Voxels.of(torch.arange(4).view(1, 4), (2, 2))

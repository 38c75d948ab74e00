"""Neighbour lists, and the kernels that go through them: against loops, references and each other.

Without a GPU they run on the CPU (tests/cuda/emulator.h).
"""

import pytest
import torch

from infdiff import ops
from infdiff.nn.geometry import PointGeometry
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.gpu import kernels, launch, layout, listed
from infdiff.ops.neighbour_lists import neighbour_lists
from infdiff.points import all_points, draw_points
from tests.ops.places import places

TYPES = [torch.float32, torch.float16, torch.bfloat16]
# Relative to the largest value: a rounding of the type itself, for sums in float32.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def drawn(batch, count, size):
    return draw_points(batch, count, size, torch.Generator().manual_seed(count))


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def everything(inputs, points):
    """Output, and the gradients to features and taps."""
    features, taps = (x.detach().clone().requires_grad_() for x in inputs)
    out = ops.sparse_depthwise_conv2d(features, taps, points)
    grad = random(*out.shape, dtype=out.dtype, seed=1).to(out.device)
    return out.detach(), *torch.autograd.grad(out, (features, taps), grad)


@pytest.mark.parametrize("window", [(1, 1), (3, 5), (7, 7), (13, 3)])
@pytest.mark.parametrize(("size", "count"), [((9, 17), 60), ((20, 15), 270), ((1, 200), 150), ((6, 6), 1)])
def test_lists_are_those_of_a_loop(window, size, count, device):
    ids = drawn(2, count, size).to(device)
    by_point, by_offset = (x.cpu() for x in neighbour_lists(ids, ops.lattice_index(ids, size), size, window))
    offsets = window[0] * window[1]
    for image, row in enumerate(ids.cpu().tolist()):
        numbers = {pixel: number for number, pixel in enumerate(row)}
        pairs = [[] for _ in range(offsets)]
        for point, pixel in enumerate(row):
            found = []
            for offset in range(offsets):
                y = pixel // size[1] + offset // window[1] - window[0] // 2
                x = pixel % size[1] + offset % window[1] - window[1] // 2
                number = numbers.get(y * size[1] + x) if 0 <= y < size[0] and 0 <= x < size[1] else None
                if number is not None:
                    found.append(number << 8 | offset)
                    pairs[offset].append((point // 128, number << 7 | point % 128))
            filled = [*found, point << 8 | offsets] if len(found) % 2 else found
            assert by_point[image, point, 0] == len(found)
            assert by_point[image, point, 2 : 2 + len(filled)].tolist() == filled
        for stretch in range(by_offset.shape[1]):
            for offset in range(offsets):
                here = [word for place, word in pairs[offset] if place == stretch]
                assert by_offset[image, stretch, offset, 0] == len(here)
                assert by_offset[image, stretch, offset, 1 : 1 + len(here)].tolist() == here


def test_images_that_share_their_points_share_their_lists(device):
    size = (9, 14)
    ids = drawn(1, 40, size).to(device)
    shared, repeated = (PointGeometry.at_scale(i, size, 5, (1.0, 1.0)) for i in (ids.expand(3, -1), ids.repeat(3, 1)))
    assert [len(g.depthwise_points.by_point) for g in (shared, repeated)] == [1, 3]
    inputs = random(3, 40, 8).to(device), random(8, 1, 5, 5, seed=2).to(device)
    for a, b in zip(*(everything(inputs, g.depthwise_points) for g in (shared, repeated)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.5, 3.0)])
def test_stored_lists_are_read_and_made_once(scale, emulated):
    size = (12, 14)
    ids = drawn(2, 60, size)
    points = PointGeometry.at_scale(ids, size, 3, scale).depthwise_points
    assert points.by_point.numel() > 0
    inputs = random(2, 60, 8), random(8, 1, 3, 3, seed=2)
    made = everything(inputs, points._replace(by_point=None, by_offset=None))
    emulated.launched.clear()
    for a, b in zip(everything(inputs, points), made, strict=True):
        assert torch.equal(a, b)
    assert emulated.launched == {"listed_conv", "listed_taps", "scaled_rows", "sum_chunks"}


# 24 channels: 3 of a warp's 8 lanes; 72 and 33: more than one part.
@pytest.mark.parametrize("channels", [1, 3, 8, 24, 33, 64, 72, 130])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_kernels_against_the_reference(dtype, channels, device):
    size, count = (11, 15), 70
    ids = drawn(3, count, size)
    inputs = [random(3, count, channels, dtype=dtype), random(channels, 1, 5, 5, dtype=dtype, seed=2)]
    for scale in ((1.0, 1.0), (0.75, 2.0)):
        actual = everything([x.to(device) for x in inputs], ops.Points.of(ids.to(device), size, 5, scale).listed(5))
        features, taps = (x.double().requires_grad_() for x in inputs)
        out = ops.sparse_depthwise_conv2d_ref(features, taps, places(ids, size, scale))
        grad = random(*out.shape, dtype=dtype, seed=1).double()
        for a, b in zip(actual, (out, *torch.autograd.grad(out, (features, taps), grad)), strict=True):
            assert a.dtype == dtype
            assert a.is_contiguous()
            assert (a.double().cpu() - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


@pytest.mark.parametrize("k", [3, 7, 13])
def test_gradients_are_those_of_the_sum(k, device):
    # The operator is linear in the features and in the taps: <grad, A f> is <A^T grad, f>, and the same for the taps.
    size = (17, 23)
    ids = drawn(2, 150, size).to(device)
    points = ops.Points.of(ids, size, k).listed(k)
    inputs = random(2, 150, 16).to(device), random(16, 1, k, k, seed=2).to(device)
    out, to_features, to_taps = everything(inputs, points)
    inner = (out.double() * random(*out.shape, seed=1).to(device)).sum()
    for gradient, value in zip((to_features, to_taps), inputs, strict=True):
        torch.testing.assert_close((gradient.double() * value).sum(), inner, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", TYPES)
def test_images_and_channels_may_come_in_any_order(dtype, device):
    size, k = (20, 21), 7
    ids = drawn(4, 140, size).to(device)
    inputs = random(4, 140, 64, dtype=dtype).to(device), random(64, 1, k, k, dtype=dtype, seed=2).to(device)
    out, to_features, _ = everything(inputs, ops.Points.of(ids, size, k).listed(k))
    order = torch.tensor([2, 0, 3, 1], device=device)
    grad = random(*out.shape, dtype=dtype, seed=1).to(device)
    features, taps = inputs[0][order].requires_grad_(), inputs[1].clone().requires_grad_()
    moved = ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids[order], size, k).listed(k))
    assert torch.equal(moved, out[order])
    assert torch.equal(torch.autograd.grad(moved, features, grad[order])[0], to_features[order])
    channels = torch.randperm(64, generator=torch.Generator().manual_seed(3)).to(device)
    features, taps = inputs[0][..., channels].requires_grad_(), inputs[1][channels].requires_grad_()
    mixed = ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, size, k).listed(k))
    gradients = torch.autograd.grad(mixed, (features, taps), grad[..., channels])
    for a, b in zip((mixed, *gradients), everything(inputs, ops.Points.of(ids, size, k).listed(k)), strict=True):
        assert torch.equal(a, b[channels] if b.dim() == 4 else b[..., channels])


def test_the_order_of_the_sum_depends_on_shapes_alone(emulated, monkeypatch):
    # More stretches than chunks: one adds several of them up, over the border between images too.
    size, count = (30, 30), 300
    ids = drawn(3, count, size)
    inputs = random(3, count, 8), random(8, 1, 3, 3, seed=2)
    monkeypatch.setattr(layout, "_CHUNKS", 4)
    assert layout.chunks(3 * 3, 72) == (3, 3)
    assert layout.chunks(3 * 3 - 1, 72) == (4, 2)
    *_, few = everything(inputs, ops.Points.of(ids, size, 3))
    monkeypatch.setattr(layout, "_PARTIAL_SUMS", 72)
    *_, one = everything(inputs, ops.Points.of(ids, size, 3))
    monkeypatch.undo()
    torch.testing.assert_close(few, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [3, 7, 13])
@pytest.mark.parametrize("dtype", TYPES)
def test_without_room_for_lists_neighbours_are_searched(dtype, k, emulated, monkeypatch):
    size, count = (12, 14), 60
    ids = drawn(2, count, size)
    inputs = random(2, count, 24, dtype=dtype), random(24, 1, k, k, dtype=dtype, seed=2)
    with_lists = everything(inputs, ops.Points.of(ids, size, k))
    monkeypatch.setattr(listed, "MAX_BYTES", 0)
    emulated.launched.clear()
    points = ops.Points.of(ids, size, k).listed(k)
    assert points.by_point.shape == points.by_offset.shape == (0,)
    searched = everything(inputs, points)
    assert emulated.launched == {
        *("lattice_index", "inverse_count", "sparse_conv", "sparse_conv_transposed", "sparse_conv_taps", "sum_chunks")
    }
    for a, b in zip(with_lists, searched, strict=True):
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


def test_the_limit_is_a_function_of_shapes():
    assert listed.can_list(32, 16384, (7, 7))
    assert not listed.can_list(320, 16384, (7, 7))
    assert listed.can_list(1, 4096, (13, 13))
    assert not listed.can_list(1, 4096, (15, 15))
    assert kernels.MAX_WINDOW > 15


def test_lists_of_other_points_are_refused(emulated):
    ids = drawn(2, 40, (9, 14))
    points = ops.Points.of(ids, (9, 14), 3).listed(3)
    inputs = random(2, 40, 8), random(8, 1, 3, 3)
    with pytest.raises(ValueError, match=r"by_point .*want \(2, 40, 12\)"):
        ops.sparse_depthwise_conv2d(*inputs, points._replace(by_point=points.by_point[:, :39]))
    with pytest.raises(ValueError, match=r"by_offset .*want \(2, 1, 9, 129\)"):
        ops.sparse_depthwise_conv2d(*inputs, points._replace(by_offset=points.by_offset.long()))


def test_all_pixels_and_closed_kernels_have_no_lists(emulated, monkeypatch):
    everywhere = ops.Points.of(all_points(2, (6, 7)), (6, 7), 3)
    assert everywhere.listed(3) is everywhere
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    ids = drawn(2, 20, (6, 7))
    points = ops.Points.of(ids, (6, 7), 3).listed(3)
    assert points.by_point.numel() == points.by_offset.numel() == 0
    inputs = random(2, 20, 8), random(8, 1, 3, 3)
    assert torch.equal(
        ops.sparse_depthwise_conv2d(*inputs, points),
        ops.sparse_depthwise_conv2d(*inputs, ops.Points.of(ids, (6, 7), 3)),
    )


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 1.5)])
def test_pytorch_finds_the_operators_as_registered(scale, emulated):
    size = (8, 9)
    ids = drawn(2, 30, size)
    points = ops.Points.of(ids, size, 3, scale)
    arguments = (ids, points.index, *size, *window_of(3, scale))
    torch.library.opcheck(torch.ops.infdiff.neighbour_lists.default, arguments, test_utils=("test_schema",))
    features = torch.randn(2, 30, 4, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    convolution = torch.ops.infdiff.sparse_depthwise_conv2d
    backward = torch.ops.infdiff.sparse_depthwise_conv2d_backward
    for stored in (points, points.listed(3)):
        torch.library.opcheck(convolution.default, (*features, *stored, "auto", torch.randn(4, requires_grad=True)))
        plain = (torch.randn(2, 30, 4), *(f.detach() for f in features))
        torch.library.opcheck(backward.default, (*plain, *stored, "auto", True, True, True, plain[0]))

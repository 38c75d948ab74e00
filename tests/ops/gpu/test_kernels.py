"""The CUDA kernels against the float64 references: outputs and every gradient.

Without a GPU they run on the CPU (tests/cuda/emulator.h), through the same operators and the same launches; with one,
the same tests run there, too.
"""

import pytest
import torch

from infdiff import ops
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.gpu import kernels, launch, layout, listed
from infdiff.points import all_points, draw_points
from tests.ops.places import places

CHANNELS = [1, 3, 8, 64, 65]
KERNELS = [1, 3, 7, 13, 29]
TYPES = [torch.float32, torch.float16, torch.bfloat16]
# Relative to the largest value: a rounding of the type itself, for sums in float32.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

# Every channel number with every kernel size and number of points in float32; every one of each in the other types.
CASES = [(torch.float32, c, k, n) for c in CHANNELS for k in KERNELS for n in (1, 2, 129, "all")]
CASES += [(t, c, 7, n) for t in TYPES[1:] for c in CHANNELS for n in (2, "all")]
CASES += [(t, 8, k, n) for t in TYPES[1:] for k in KERNELS if k != 7 for n in (1, 129)]


def some_cases():
    """The cases; long are those without which every two of type, channels, kernel size and number of points meet.

    A kernel is compiled for the first three; the number of points chooses how it is launched.
    """
    for dtype, channels, k, count in CASES:
        place = CHANNELS.index(channels) + KERNELS.index(k)
        counts = [1, 2, 129, "all"] if dtype == torch.float32 else [2, "all"] if k == 7 else [1, 129]
        # The types differ by one place.
        met = counts[(place + TYPES.index(dtype)) % len(counts)] == count
        yield pytest.param(dtype, channels, k, count, marks=() if met else pytest.mark.long)


def some_points(count, size, batch=2):
    """count may be "all"."""
    pixels = size[0] * size[1]
    if count == "all":
        return all_points(batch, size)
    return draw_points(batch, min(count, pixels), size, torch.Generator().manual_seed(count))


def random(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_near(actual, expected, dtype):
    assert actual.isfinite().all()
    scale = expected.abs().max().clamp(min=1e-6)
    assert (actual.double().cpu() - expected).abs().max() <= TOLERANCE[dtype] * scale


def compare(function, reference, inputs, dtype, device):
    """Result and gradients of an operator in `dtype` against its reference in float64, from the same rounded inputs."""
    low = [x.to(device).requires_grad_() for x in inputs]
    high = [x.double().requires_grad_() for x in inputs]
    actual, expected = function(*low), reference(*high)
    assert actual.dtype == dtype
    assert_near(actual, expected, dtype)
    grad = random(*expected.shape, dtype=dtype, seed=1)
    got = torch.autograd.grad(actual, low, grad.to(device).view_as(actual))
    want = torch.autograd.grad(expected, high, grad.double())
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert_near(a, b, dtype)


@pytest.mark.parametrize(("dtype", "channels", "k", "count"), list(some_cases()))
def test_depthwise_convolution(dtype, channels, k, count, device):
    size = (9, 17) if device.type == "cpu" else (67, 45)
    ids = some_points(count, size)
    inputs = [random(2, ids.shape[1], channels, dtype=dtype), random(channels, 1, k, k, dtype=dtype, seed=2)]
    compare(
        lambda f, t: ops.sparse_depthwise_conv2d(f, t, ops.Points.of(ids.to(device), size, k)),
        lambda f, t: ops.sparse_depthwise_conv2d_ref(f, t, places(ids, size)),
        inputs,
        dtype,
        device,
    )


# Through lists, by searching, of all pixels, and enlarged: in one kernel, or in several of channels not in eights.
WAYS = {"lists": (100, 7, (1.0, 1.0)), "search": (100, 15, (1.0, 1.0)), "dense": ("all", 7, (1.0, 1.0))}
WAYS["enlarged"] = "all", 3, (4.0, 4.0)


@pytest.mark.parametrize(
    ("way", "dtype", "channels"),
    [("lists", dtype, channels) for dtype in TYPES for channels in (3, 64)]
    + [("lists", torch.float32, 264)]  # of more channels than one block takes
    + [(way, dtype, 8) for dtype in (torch.float32, torch.bfloat16) for way in WAYS if way != "lists"]
    + [("enlarged", torch.bfloat16, 3)],
)
def test_bias_and_what_is_passed_on(way, dtype, channels, device):
    count, k, scale = WAYS[way]
    size = (9, 17) if device.type == "cpu" else (67, 45)
    ids = some_points(count, size)
    inputs = [random(2, ids.shape[1], channels, dtype=dtype), random(channels, 1, k, k, dtype=dtype, seed=2)]
    inputs.append(random(channels, dtype=dtype, seed=3))

    def passing(features, taps, bias):
        points = ops.Points.of(ids.to(device), size, k, scale)
        return torch.cat(ops.sparse_depthwise_conv2d_passing(features, taps, points, "auto", bias), dim=2)

    def by_reference(features, taps, bias):
        out = ops.sparse_depthwise_conv2d_ref(features, taps, places(ids, size, scale), "auto", bias)
        return torch.cat([out, features], dim=2)

    compare(passing, by_reference, inputs, dtype, device)


def test_many_rows_are_summed_in_pieces(device, monkeypatch):
    rows, scale = random(3, 5000, 8, dtype=torch.float32).to(device), random(1, 5000, 1, dtype=torch.float32).to(device)
    for least in (16, 1):
        monkeypatch.setattr(listed, "_ROWS", least)
        out, total = listed.scaled_rows(rows, scale, summed=True)
        assert torch.equal(out, rows * scale)
        torch.testing.assert_close(total, rows.sum((0, 1)), rtol=1e-4, atol=1e-3)
        assert listed.scaled_rows(rows, scale, summed=False)[1] is None


@pytest.mark.parametrize(("size", "count"), [((1, 1), 1), ((5, 300), 129), ((257, 129), 129), ((131, 65), 2100)])
@pytest.mark.parametrize("channels", [3, 64])
def test_depthwise_convolution_on_images_of_odd_shape(size, count, channels, device):
    ids = some_points(count, size, batch=1)
    inputs = [
        random(1, ids.shape[1], channels, dtype=torch.float32),
        random(channels, 1, 7, 7, dtype=torch.float32, seed=2),
    ]
    compare(
        lambda f, t: ops.sparse_depthwise_conv2d(f, t, ops.Points.of(ids.to(device), size, 7)),
        lambda f, t: ops.sparse_depthwise_conv2d_ref(f, t, places(ids, size)),
        inputs,
        torch.float32,
        device,
    )


@pytest.mark.parametrize("scale", [(2.0, 2.0), (1.5, 3.0), (0.5, 0.75), (5.3, 2.0), (4.0, 6.0)])
@pytest.mark.parametrize("count", [40, "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depthwise_convolution_at_any_scale(scale, count, dtype, device):
    size = (12, 14)
    ids = some_points(count, size)
    inputs = [random(2, ids.shape[1], 8, dtype=dtype), random(8, 1, 5, 5, dtype=dtype, seed=2)]
    compare(
        lambda f, t: ops.sparse_depthwise_conv2d(f, t, ops.Points.of(ids.to(device), size, 5, scale)),
        lambda f, t: ops.sparse_depthwise_conv2d_ref(f, t, places(ids, size, scale)),
        inputs,
        dtype,
        device,
    )


@pytest.mark.parametrize("count", [60, "all"])
def test_a_kernel_wider_than_the_limit_goes_to_complete_images(count, device):
    size, scale = (16, 16), (17.0, 17.0)
    ids = some_points(count, size)
    inputs = [random(2, ids.shape[1], 8, dtype=torch.float32), random(8, 1, 3, 3, dtype=torch.float32, seed=2)]
    assert max(window_of(3, scale)) > kernels.MAX_WINDOW
    compare(
        lambda f, t: ops.sparse_depthwise_conv2d(f, t, ops.Points.of(ids.to(device), size, 3, scale)),
        lambda f, t: ops.sparse_depthwise_conv2d_ref(f, t, places(ids, size, scale)),
        inputs,
        torch.float32,
        device,
    )


@pytest.mark.parametrize("channels", [*CHANNELS, 264])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("size", "grid", "count"),
    [
        ((9, 17), (4, 8), 60),
        ((12, 12), (12, 12), 30),
        ((6, 6), (3, 4), 2),
        ((7, 5), (9, 8), "all"),
        ((16, 20), (4, 5), "all"),
        ((10, 10), (4, 4), "all"),
        ((10, 10), (4, 4), 60),
        ((10, 15), (4, 6), 20),
        ((1, 1), (2, 2), 1),
    ],
)
def test_points_to_grid_and_back(channels, dtype, size, grid, count, device):
    ids = some_points(count, size)
    here = ids.to(device)
    near, expected = ops.nearest_points(here, size, grid), ops.nearest_points_ref(ids, size, grid)
    compare(
        lambda f: ops.points_to_grid(f, near),
        lambda f: ops.points_to_grid_ref(f, expected),
        [random(2, ids.shape[1], channels, dtype=dtype)],
        dtype,
        device,
    )
    compare(
        lambda g: ops.grid_to_points(g, here, size),
        lambda g: ops.grid_to_points_ref(g, ids, size),
        [random(2, channels, *grid, dtype=dtype)],
        dtype,
        device,
    )


@pytest.mark.parametrize(
    ("size", "grid", "count"),
    [
        ((64, 64), (32, 32), 1024),
        ((48, 80), (16, 24), 500),
        ((5, 300), (4, 9), 100),
        ((257, 129), (16, 24), 129),
        ((9, 9), (3, 3), "all"),
        ((8, 8), (4, 4), "all"),
        ((32, 24), (4, 6), "all"),
        ((20, 20), (8, 8), "all"),
        ((10, 10), (7, 9), "all"),
        ((20, 20), (8, 8), 200),
        ((32, 24), (16, 12), 400),
        ((7, 5), (3, 4), 2),
        ((6, 6), (4, 4), 1),
        ((1, 1), (2, 2), 1),
        ((4, 4), (9, 7), 5),
    ],
)
def test_nearest_points_are_the_same_with_ties_and_few_points(size, grid, count, device):
    ids = some_points(count, size, batch=3)
    fast = ops.nearest_points(ids.to(device), size, grid)
    slow = ops.nearest_points_ref(ids, size, grid)
    assert torch.equal(fast.number.cpu(), slow.number)
    assert torch.equal(fast.share.cpu(), slow.share)
    assert torch.equal(fast.reach.cpu(), slow.reach)
    torch.testing.assert_close(fast.weight.cpu(), slow.weight, rtol=1e-6, atol=0)


def test_nearest_points_of_a_cluster_far_from_most_cells(device):
    ids = (torch.arange(20).view(4, 5) + 64 * torch.arange(4)[:, None]).flatten().unique().view(1, -1)
    fast, slow = ops.nearest_points(ids.to(device), (64, 64), (16, 16)), ops.nearest_points_ref(ids, (64, 64), (16, 16))
    assert torch.equal(fast.number.cpu(), slow.number)
    features = [random(1, ids.shape[1], 8, dtype=torch.float32)]
    compare(
        lambda f: ops.points_to_grid(f, fast),
        lambda f: ops.points_to_grid_ref(f, slow),
        features,
        torch.float32,
        device,
    )


@pytest.mark.parametrize(("size", "count"), [((1, 1), 1), ((5, 300), 200), ((33, 20), 1), ((12, 9), 107), ((12, 9), 1)])
def test_index_and_count(size, count, device):
    ids = some_points(count, size, batch=3)
    assert torch.equal(ops.lattice_index(ids.to(device), size).cpu(), ops.lattice_index_ref(ids, size))
    for k, scale in ((7, (1.0, 1.0)), (5, (1.5, 3.0)), (1, (0.5, 2.0))):
        narrow = ops.inverse_count(ids.to(device), size, k, scale)
        actual = ops.inverse_count(ids.to(device), size, k, scale, dtype=torch.float64)
        assert torch.equal(narrow, actual.float())
        expected = ops.inverse_count_ref(ids, size, k, scale, dtype=torch.float64)
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "count"), [((100, 130), 3), ((32, 32), 1024), ((64, 48), 2000), ((33, 31), 1)])
def test_an_index_of_many_blocks(size, count, device):
    ids = some_points(count, size, batch=3)
    assert torch.equal(ops.lattice_index(ids.to(device), size).cpu(), ops.lattice_index_ref(ids, size))


def test_the_index_takes_no_longer_for_few_points(emulated, monkeypatch):
    # Every block writes 1024 pixels, whatever points there are: a thread never writes those between two points alone.
    drawn = [some_points(count, (100, 130)) for count in (1, 500)]
    grids = []
    run = launch.launch
    monkeypatch.setattr(launch, "launch", lambda *given: (grids.append(given[3]), run(*given)))
    for ids in drawn:
        kernels.lattice_index(ids, (100, 130))
    assert grids == [(13, 2, 1)] * 2


def test_ids_that_do_not_ascend_write_within_the_image(emulated):
    wrong = torch.tensor([[1500, 3, 3, 2999, 7, -5, 9000]])
    index = kernels.lattice_index(wrong, (50, 60))
    assert index.shape == (1, 50, 60)
    assert index.min() >= -1
    assert index.max() < 7


def test_images_that_share_their_points(device):
    size, grid = (9, 14), (4, 5)
    ids = some_points(40, size, batch=1).to(device)
    shared, repeated = ids.expand(3, -1), ids.repeat(3, 1)
    features, taps = (
        random(3, 40, 8, dtype=torch.float32).to(device),
        random(8, 1, 7, 7, dtype=torch.float32).to(device),
    )
    one, many = (
        (
            ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(points, size, 7)),
            ops.points_to_grid(features, ops.nearest_points(points, size, grid)),
            ops.lattice_index(points, size),
        )
        for points in (shared, repeated)
    )
    for a, b in zip(one, many, strict=True):
        assert torch.equal(a, b)


def test_features_that_are_not_contiguous_or_aligned(device):
    size = (9, 14)
    ids = some_points(40, size).to(device)
    points = ops.Points.of(ids, size, 7)
    wide = random(2, 40, 24, dtype=torch.float32).to(device)
    taps = random(8, 1, 7, 7, dtype=torch.float32).to(device)
    for features in (wide[:, :, 8:16], wide[:, :, ::3], wide.flatten()[1 : 1 + 2 * 40 * 8].view(2, 40, 8)):
        expected = ops.sparse_depthwise_conv2d_ref(features.contiguous(), taps, points)
        actual = ops.sparse_depthwise_conv2d(features, taps, points)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("window", [(7, 7), (63, 63), (1, 63)])
@pytest.mark.parametrize("channels", [1, 64, 1024])
def test_partial_sums_of_the_taps_take_little_memory(window, channels):
    sums = channels * window[0] * window[1]
    for points in (1, 1000, 524_288, 2**26):
        chunks, length = layout.chunks(points, sums, least=64)
        assert 1 <= chunks <= 1024
        assert (chunks - 1) * length < points <= chunks * length
        assert chunks * sums * 4 <= 64 * 2**20


def test_fewer_chunks_give_the_same_gradient_of_the_taps(device, monkeypatch):
    size = (40, 50)
    ids = some_points(600, size).to(device)
    features = random(2, 600, 8, dtype=torch.float32).to(device)
    gradients, counts = [], []
    for most in (2**24, 2 * 49 * 8):
        monkeypatch.setattr(layout, "_PARTIAL_SUMS", most)
        counts.append(layout.chunks(2 * 600, 49 * 8, least=64)[0])
        taps = random(8, 1, 7, 7, dtype=torch.float32, seed=1).to(device).requires_grad_()
        ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, size, 7)).square().sum().backward()
        gradients.append(taps.grad)
    assert counts == [19, 2]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-3)


def test_outputs_follow_the_points_shift(device):
    # Points moved by (1, 2) within a larger image: the same values come out, where no border interferes.
    ids = some_points(40, (9, 14))
    row, column = ids // 14, ids % 14
    features, taps = (
        random(2, 40, 8, dtype=torch.float32).to(device),
        random(8, 1, 3, 3, dtype=torch.float32).to(device),
    )
    here = ((row + 3) * 20 + column + 3).to(device)
    there = ((row + 4) * 20 + column + 5).to(device)
    a, b = (ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(points, (16, 20), 3)) for points in (here, there))
    assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", TYPES)
def test_five_runs_give_the_same_bits(dtype, device):
    size, grid = (33, 20), (8, 8)
    ids = some_points(300, size).to(device)

    def run():
        features = random(2, 300, 64, dtype=dtype).to(device).requires_grad_()
        taps = random(64, 1, 7, 7, dtype=dtype, seed=3).to(device).requires_grad_()
        mixed = ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, size, 7))
        image = ops.points_to_grid(mixed, ops.nearest_points(ids, size, grid))
        out = ops.grid_to_points(image, ids, size)
        return out, *torch.autograd.grad(out.float().square().sum(), (features, taps))

    first = run()
    for _ in range(4):
        for a, b in zip(run(), first, strict=True):
            assert torch.equal(a, b)


def test_every_kernel_was_run(emulated):
    size, grid = (9, 14), (4, 5)
    ops.permuted_pixels(torch.ones(2, 1, 1, dtype=torch.int64), 3, size)
    taps = random(8, 1, 7, 7, dtype=torch.float32).requires_grad_()
    cases = ((40, (1.0, 1.0)), (40, (3.0, 3.0)), ("all", (1.0, 1.0)), ("all", (20.0, 20.0)), ("all", (20.5, 3.0)))
    for count, scale in cases:
        ids = some_points(count, size)
        features = random(2, ids.shape[1], 8, dtype=torch.float32).requires_grad_()
        mixed = ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, size, 7, scale))
        image = ops.points_to_grid(mixed, ops.nearest_points(ids, size, grid))
        ops.grid_to_points(image, ids, size).sum().backward()
    sources = (
        "lattice_index inverse_count nearest_points sparse_conv sparse_conv_transposed sparse_conv_taps sum_chunks"
    )
    sources += " permuted_pixels neighbour_lists listed_conv listed_taps scaled_rows"
    sources += " enlarged_conv enlarged_conv_transposed dense_conv dense_filter"
    sources += " points_to_grid points_to_grid_transposed grid_to_points"
    assert emulated.launched == {*sources.split(), "grid_to_points_transposed"}


def test_float64_goes_to_the_reference(emulated):
    ids = some_points(40, (9, 14))
    taps = random(8, 1, 3, 3, dtype=torch.float64)
    features = random(2, 40, 8, dtype=torch.float64)
    out = ops.sparse_depthwise_conv2d(features, taps, ops.Points.of(ids, (9, 14), 3, dtype=torch.float64))
    assert out.dtype == torch.float64
    assert "sparse_conv" not in emulated.launched

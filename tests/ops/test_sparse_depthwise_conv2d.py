"""The sparse integral operator against its specification, conv2d, and its laws."""

import pytest
import torch
import torch.nn.functional as F

from infdiff import ops
from infdiff.coordinates import pixel_coordinates
from infdiff.points import all_points, draw_points, gather
from tests.ops.places import places


def conv(features, taps, ids, size, scale=(1.0, 1.0), backend="auto"):
    """Depthwise or regular, as the taps say."""
    function = ops.sparse_depthwise_conv2d if taps.shape[1] == 1 else ops.sparse_conv2d
    return function(features, taps, ops.Points.of(ids, size, taps.shape[-1], scale, features.dtype), backend)


def conv_ref(features, taps, ids, size, scale=(1.0, 1.0)):
    function = ops.sparse_depthwise_conv2d_ref if taps.shape[1] == 1 else ops.sparse_conv2d_ref
    return function(features, taps, places(ids, size, scale))


SCALES = [(1.0, 1.0), (2.0, 2.0), (1.5, 3.0), (0.5, 0.75), (5.0, 5.0), (5.3, 2.0), (16.0, 3.0)]


def dense_conv(image, taps, groups):
    """conv2d with the count normalisation, from PyTorch alone: image (B, C, H, W) float64."""
    k = taps.shape[-1]
    ones = torch.ones(1, 1, *image.shape[2:], dtype=image.dtype)
    count = F.conv2d(ones, torch.ones(1, 1, k, k, dtype=image.dtype), padding=k // 2)
    return k * k * F.conv2d(image, taps, padding=k // 2, groups=groups) / count


def as_points(image):
    return image.flatten(2).mT


def tent_kernel(distance):
    return max(0.0, 1 - abs(distance))


@pytest.mark.parametrize("backend", ["lattice", "dense"])
@pytest.mark.parametrize("k", [1, 3, 7, 13])
@pytest.mark.parametrize("depthwise", [True, False])
def test_all_pixels_present_is_conv2d_over_the_count(backend, k, depthwise, generator):
    image = torch.randn(2, 3, 9, 14, dtype=torch.float64, generator=generator)
    taps = torch.randn(3, 1 if depthwise else 3, k, k, dtype=torch.float64, generator=generator)
    expected = dense_conv(image, taps, 3 if depthwise else 1)
    ids = all_points(2, (9, 14))
    actual = conv(as_points(image), taps, ids, (9, 14), (1.0, 1.0), backend=backend)
    torch.testing.assert_close(actual, as_points(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize(("size", "count"), [((12, 12), 36), ((5, 40), 129), ((12, 12), 144), ((3, 4), 1)])
def test_routes_agree_with_gradients_at_any_scale(scale, depthwise, size, count, generator):
    ids = draw_points(2, count, size, generator)
    shape = (4, 1, 5, 5) if depthwise else (3, 4, 5, 5)
    inputs = [
        torch.randn(2, count, 4, dtype=torch.float64, generator=generator, requires_grad=True),
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True),
    ]
    expected = conv_ref(*inputs, ids, size, scale)
    actual = conv(*inputs, ids, size, scale, backend="dense")
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    want = torch.autograd.grad((expected * weights).sum(), inputs)
    got = torch.autograd.grad((actual * weights).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-9)


def test_reference_is_the_formula_written_out(generator):
    size, scale, k = (6, 7), (1.6, 2.0), 3
    ids = draw_points(1, 15, size, generator)
    features = torch.randn(1, 15, 1, dtype=torch.float64, generator=generator)
    taps = torch.randn(1, 1, k, k, dtype=torch.float64, generator=generator)
    places = [divmod(int(i), size[1]) for i in ids[0]]
    for number, (row, column) in enumerate(places):
        total = count = 0.0
        for other, (row2, column2) in enumerate(places):
            u, v = (row2 - row) / scale[0], (column2 - column) / scale[1]
            chi = kappa = 0.0
            for i in range(k):
                for j in range(k):
                    tent = tent_kernel(u - (i - 1)) * tent_kernel(v - (j - 1))
                    chi += tent
                    kappa += taps[0, 0, i, j].item() * tent
            total += kappa * features[0, other, 0].item()
            count += chi
        actual = conv_ref(features, taps, ids, size, scale)[0, number, 0].item()
        assert actual == pytest.approx(k * k * total / count, abs=1e-12)


def test_sparse_is_masked_dense(generator):
    ids = draw_points(2, 50, (12, 15), generator)
    image = torch.randn(2, 3, 12, 15, dtype=torch.float64, generator=generator)
    mask = torch.zeros(2, 180, dtype=torch.float64).scatter_(1, ids, 1.0).view(2, 1, 12, 15)
    taps = torch.randn(3, 1, 7, 7, dtype=torch.float64, generator=generator)
    convolved = F.conv2d(image * mask, taps, padding=3, groups=3)
    expected = 49 * convolved / F.conv2d(mask, torch.ones(1, 1, 7, 7, dtype=torch.float64), padding=3).clamp(min=1)
    actual = conv_ref(gather(image, ids), taps, ids, (12, 15), (1.0, 1.0))
    torch.testing.assert_close(actual, gather(expected, ids), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_constant_goes_to_the_same_constant_at_every_resolution(factor, generator):
    taps = torch.randn(2, 1, 7, 7, dtype=torch.float64, generator=generator)
    size = (16 * factor, 16 * factor)
    out = conv_ref(
        torch.ones(1, size[0] ** 2, 2, dtype=torch.float64), taps, all_points(1, size), size, (factor, factor)
    )
    inner = out.view(*size, 2)[4 * factor : -4 * factor, 4 * factor : -4 * factor]
    torch.testing.assert_close(inner, taps.sum(dim=(1, 2, 3)).expand_as(inner), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["lattice", "dense"])
@pytest.mark.parametrize("scale", [0.75, 0.5, 0.4, 1 / 3, 0.25])
def test_a_constant_goes_to_the_same_constant_below_the_base_resolution(backend, scale, generator):
    taps = torch.randn(2, 1, 7, 7, dtype=torch.float64, generator=generator)
    size, border = (24, 20), 4
    ids = all_points(1, size)
    out = conv(torch.ones(1, 480, 2, dtype=torch.float64), taps, ids, size, (scale, scale), backend=backend)
    inner = out.view(*size, 2)[border:-border, border:-border]
    torch.testing.assert_close(inner, taps.sum(dim=(1, 2, 3)).expand_as(inner), rtol=1e-12, atol=1e-12)


def test_a_smooth_function_goes_to_the_same_function_at_every_resolution(generator):
    taps = torch.rand(1, 1, 5, 5, dtype=torch.float64, generator=generator)

    def values(factor):
        size = (24 * factor, 24 * factor)
        ids = all_points(1, size)
        place = pixel_coordinates(ids, size, torch.float64)
        smooth = (torch.sin(3 * place[..., :1] + 1) + torch.cos(2 * place[..., 1:])) / 2
        out = conv(smooth, taps, ids, size, (factor, factor)).view(1, 1, *size)
        # Read both at the coarse pixels' centres; the border's window is cut differently.
        return F.interpolate(out, (24, 24), mode="bilinear", align_corners=False)[..., 4:-4, 4:-4]

    coarse = values(1)
    errors = [(values(factor) - coarse).abs().max() / coarse.abs().max() for factor in (2, 4)]
    # The quadrature error of a tent on a function of curvature 9 at spacing 1/24: h^2 f'' / 8, about 2e-3.
    assert max(errors) < 4e-3


def test_outputs_follow_the_points_order_bit_for_bit(generator):
    ids = draw_points(1, 40, (10, 10), generator)
    features = torch.randn(1, 40, 3, generator=generator)
    taps = torch.randn(3, 1, 5, 5, generator=generator)
    order = torch.randperm(40, generator=generator)
    straight = conv_ref(features, taps, ids, (10, 10), (1.0, 1.0))
    shuffled = conv_ref(features[:, order], taps, ids[:, order], (10, 10), (1.0, 1.0))
    assert torch.equal(shuffled, straight[:, order])


@pytest.mark.parametrize("backend", ["lattice", "dense"])
def test_gradients_are_right(backend, generator):
    ids = draw_points(2, 7, (4, 5), generator)
    features = torch.randn(2, 7, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    taps = torch.randn(2, 1, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    def function(features, taps):
        return conv(features, taps, ids, (4, 5), (1.5, 2.0), backend=backend)

    assert torch.autograd.gradcheck(function, (features, taps))


def test_a_lonely_point_keeps_its_own_value(generator):
    taps = torch.randn(1, 1, 7, 7, generator=generator)
    for backend in ("lattice", "dense"):
        out = conv(torch.full((1, 1, 1), 2.0), taps, torch.tensor([[7]]), (5, 5), (1.0, 1.0), backend=backend)
        torch.testing.assert_close(out.flatten(), 49 * 2 * taps[0, 0, 3, 3].view(1))

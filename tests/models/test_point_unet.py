"""The network on points alone, inside the denoiser and the encoder."""

import pytest
import torch

from infdiff import ops
from infdiff.coordinates import pixel_coordinates
from infdiff.models import PointDown, PointUNet, SparseEncoder, SparseUNet
from infdiff.nn import Geometry
from infdiff.ops.rows import gather_rows
from infdiff.points import all_points, draw_points
from tests.models.networks import inputs, randomise

LEVELS = {"in_channels": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "kernel_size": 3, "mlp_ratio": 2}
AROUND = {"base": (16, 16), "grid": (8, 8), "channels": 8, "kernel_size": 3, "blocks": 1, "z_dim": 5}


def denoiser(**options):
    torch.manual_seed(0)
    network = PointUNet(out_channels=8, condition_dim=16, **LEVELS)
    return randomise(SparseUNet(network, condition_dim=16, **AROUND | options))


def encoder(**options):
    torch.manual_seed(0)
    return randomise(SparseEncoder(PointDown(condition_dim=0, **LEVELS), **AROUND | options))


@pytest.mark.parametrize("size", [(16, 16), (32, 20), (9, 33), (5, 5)])
def test_any_size_and_number_of_points(size):
    model, latent = denoiser(sketch_side=3), encoder(sketch_side=2)
    for count in (1, size[0] * size[1] // 3, size[0] * size[1]):
        ids, x, t, z = inputs(size, count)
        out = model(x, model.geometry(ids, size), t, z)
        assert out.shape == x.shape
        assert out.isfinite().all()
        assert latent(x, latent.geometry(ids, size)).shape == (2, 5)


def test_levels_have_as_many_points_as_cells_and_taps_as_far_apart():
    """Half of the base along either axis, then half of that; kernels of the same physical size at twice the pixels."""
    ids = draw_points(2, 128, (16, 16), torch.Generator().manual_seed(0))
    geometry = Geometry.of(ids, (16, 16), base=(16, 16), kernel_size=3, grid=(8, 8), levels=3)
    assert [level.geometry.points.ids.shape[1] for level in geometry.levels] == [32, 8, 2]
    assert [level.geometry.points.scale for level in geometry.levels] == [(2, 2), (4, 4), (8, 8)]
    ids = all_points(1, (32, 48))
    geometry = Geometry.of(ids, (32, 48), base=(16, 16), kernel_size=3, grid=(8, 8), levels=2)
    assert [level.geometry.points.ids.shape[1] for level in geometry.levels] == [384, 96]
    assert [level.geometry.points.scale for level in geometry.levels] == [(4, 6), (8, 12)]
    above = ids[0]
    for level in geometry.levels:
        below = level.geometry.points.ids[0]
        assert torch.equal(above[level.kept[0]], below)
        above = below


def down_and_up(features, geometry):
    """Features brought to the fewest points and back, without a network."""
    for level in geometry.levels:
        features = gather_rows(features, level.kept)
    for level in reversed(geometry.levels):
        features = ops.points_to_points(features, level.sources)
    return features


def test_a_constant_stays_and_a_smooth_function_nearly_does():
    size = (32, 32)
    ids = draw_points(2, 700, size, torch.Generator().manual_seed(0))
    geometry = Geometry.of(ids, size, base=size, kernel_size=3, grid=(16, 16), levels=2)
    constant = torch.full((2, 700, 3), -1.5, dtype=torch.float64)
    torch.testing.assert_close(down_and_up(constant, geometry), constant, rtol=1e-6, atol=0)
    place = pixel_coordinates(ids, size, torch.float64)
    function = torch.sin(3 * place[..., :1]) + 0.5 * place[..., 1:]
    transposed = torch.sin(3 * place[..., 1:]) + 0.5 * place[..., :1]
    errors = []
    for grid in ((16, 16), (32, 32)):  # 44 points at the fewest, then 175
        geometry = Geometry.of(ids, size, base=size, kernel_size=3, grid=grid, levels=2)
        errors.append((down_and_up(function, geometry) - function).abs().mean())
    assert errors[1] < 0.6 * errors[0], "interpolation is of first order: points half as far apart, half the error"
    assert errors[0] < 0.3 * (transposed - function).abs().mean(), "neither transposed nor shifted"


def test_images_of_a_batch_are_apart_and_the_same_points_give_the_same():
    size, model, latent = (16, 16), denoiser(), encoder().eval()
    ids, x, t, z = inputs(size, 90)
    order = torch.tensor([1, 0])
    out, swapped = (model(x[o], model.geometry(ids[o], size), t[o], z[o]) for o in (torch.tensor([0, 1]), order))
    torch.testing.assert_close(swapped, out[order])
    assert torch.equal(model(x, model.geometry(ids, size), t, z), out)
    read = latent(x, latent.geometry(ids, size))
    torch.testing.assert_close(latent(x[order], latent.geometry(ids[order], size)), read[order])


def test_rows_that_share_memory_have_the_same_subsets():
    size, model = (16, 16), denoiser()
    ids, x, t, z = inputs(size, 256)
    shared = model(x, model.geometry(all_points(2, size), size), t, z)
    torch.testing.assert_close(model(x, model.geometry(ids.clone(), size), t, z), shared)


def test_everything_is_reached():
    size, model = (16, 16), denoiser()
    ids, x, t, z = inputs(size, 64)
    model(x, model.geometry(ids, size), t, z).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_distant_points_are_seen():
    """What a sparse block's window does not hold comes through the levels, or not at all without them."""
    size, model = (32, 32), denoiser(base=(32, 32), grid=(16, 16))
    ids = all_points(2, size)
    _, x, t, z = inputs(size, 1024)
    geometry = model.geometry(ids, size)
    kept = geometry.levels[0].kept[0]
    kept = kept[geometry.levels[1].kept[0]]
    changed = x.clone()
    changed[:, kept[0]] += 1.0
    moved = (model(changed, geometry, t, z) - model(x, geometry, t, z)).abs().sum(dim=2)[0]
    far = (pixel_coordinates(ids, size)[0] - pixel_coordinates(ids, size)[0, kept[0]]).abs().max(dim=1).values > 0.2
    assert (moved[far] > 1e-9).any()

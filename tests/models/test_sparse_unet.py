"""∞-Diff's denoiser: shapes, laws of points, conditioning."""

import pytest
import torch
from torch import nn

from infdiff import ops
from infdiff.coordinates import pixel_coordinates
from infdiff.models import SparseUNet
from infdiff.points import all_points, draw_points
from tests.models.networks import denoiser, inputs


@pytest.mark.parametrize("size", [(16, 16), (32, 20), (9, 33), (5, 5)])
@pytest.mark.parametrize("depthwise", [True, False])
def test_any_size_and_number_of_points(size, depthwise):
    model = denoiser(depthwise=depthwise)
    for count in (1, size[0] * size[1] // 3, size[0] * size[1]):
        ids, x, t, z = inputs(size, count)
        out = model(x, model.geometry(ids, size), t, z)
        assert out.shape == x.shape
        assert out.isfinite().all()


def test_dense_is_the_case_of_all_points():
    """Routes, shared geometry and whole-image shortcuts change nothing."""
    size = (12, 12)
    ids, x, t, z = inputs(size, 144)
    shared = all_points(2, size)
    results = []
    for model, points in ((denoiser(backend="lattice"), ids.clone()), (denoiser(), ids.clone()), (denoiser(), shared)):
        results.append(model(x, model.geometry(points, size), t, z))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[2], results[0], rtol=1e-4, atol=1e-5)


def test_with_the_identity_inside_a_smooth_function_comes_back():
    """The law of coordinates: points -> grid -> points around an identity network returns the function."""

    class Identity(nn.Module):
        def forward(self, x, condition):
            return x

    size = (64, 64)
    model = SparseUNet(Identity(), base=size, grid=(32, 32), in_channels=1, channels=4, blocks=1, condition_dim=8)
    ids = draw_points(1, 1024, size, torch.Generator().manual_seed(0))
    place = pixel_coordinates(ids, size)
    function = torch.sin(3 * place[..., :1]) + 0.5 * place[..., 1:]
    geometry = model.geometry(ids, size)
    features = function.expand(-1, -1, 4)
    grid = model.grid_network(ops.points_to_grid(features, geometry.neighbours), None)
    back = ops.grid_to_points(grid, ids, size)
    # Not transposed, not shifted: the error is that of interpolating a quarter of the pixels.
    assert (back - features).abs().mean() < 0.03
    transposed = torch.sin(3 * place[..., 1:]) + 0.5 * place[..., :1]
    assert (back - transposed.expand(-1, -1, 4)).abs().mean() > 0.2


def test_the_model_is_one_function_at_every_resolution():
    """Fed the same smooth function at 2 and 4 times the base resolution, it gives the same function."""
    model = denoiser()
    t, z = torch.tensor([300]), torch.ones(1, 5, dtype=torch.float64)

    def run(factor):
        size = (16 * factor, 16 * factor)
        ids = all_points(1, size)
        place = pixel_coordinates(ids, size, torch.float64)
        x = torch.cat([place, torch.sin(3 * place[..., :1])], dim=-1)
        out = model(x, model.geometry(ids, size), t, z).mT.unflatten(2, size)
        return nn.functional.interpolate(out, (16, 16), mode="area")

    base, double, quadruple = run(1), run(2), run(4)
    spread = base.std()
    assert (double - base).abs().mean() < 0.1 * spread
    assert (quadruple - double).abs().mean() < 0.1 * spread


def test_time_and_latent_matter():
    model = denoiser()
    ids, x, t, z = inputs((16, 16), 50)
    geometry = model.geometry(ids, (16, 16))
    base = model(x, geometry, t, z)
    assert not torch.allclose(model(x, geometry, t - 50, z), base)
    assert not torch.allclose(model(x, geometry, t, z + 1), base)


def test_a_latent_is_neither_forgotten_nor_forced():
    ids, x, t, z = inputs((16, 16), 50)
    model = denoiser()
    with pytest.raises(ValueError, match="needs a latent z"):
        model(x, model.geometry(ids, (16, 16)), t, None)
    model = denoiser(z_dim=0)
    with pytest.raises(ValueError, match="takes no latent z"):
        model(x, model.geometry(ids, (16, 16)), t, z)


def test_slices_of_points_change_nothing():
    """Without gradients the parts between convolutions see as many points at a time as fit a processor's cache."""
    model = denoiser(kernel_size=1)
    ids, x, t, z = inputs((96, 96), 9000)
    geometry = model.geometry(ids, (96, 96))
    with torch.no_grad():
        sliced = model(x, geometry, t, z)
    torch.testing.assert_close(sliced, model(x, geometry, t, z))


def test_the_gate_adds_the_input_in_proportion_and_starts_at_zero():
    """What it adds is gate(condition) * x at every point, the condition that of the image's t and z."""
    ids, x, t, z = inputs((16, 16), 64)
    model = denoiser(gated_input=True)
    geometry = model.geometry(ids, (16, 16))
    gate = model.gate(model.conditioning(t, z))
    open_, model.gate = model(x, geometry, t, z), None
    torch.testing.assert_close(open_ - model(x, geometry, t, z), x * gate[:, None])
    torch.manual_seed(0)
    fresh = SparseUNet(nn.Identity(), base=(16, 16), grid=(8, 8), channels=8, condition_dim=16, gated_input=True)
    assert not any(parameter.any() for parameter in fresh.gate.parameters())


def test_a_second_output_has_as_many_channels_as_the_input():
    ids, x, t, z = inputs((16, 16), 64)
    model = denoiser(sharp=True, gated_input=True)
    assert model(x, model.geometry(ids, (16, 16)), t, z).shape == (2, 64, 6)


def test_the_sketch_is_added_to_the_grid_networks_input():
    class Recorder(nn.Module):
        def forward(self, grid, condition):
            seen.append(grid)
            return grid

    seen = []
    ids, x, t, z = inputs((16, 16), 64)
    model = denoiser(sketch_side=3)
    model.grid_network, sketch = Recorder(), model.sketch
    for model.sketch in (sketch, None):
        model(x, model.geometry(ids, (16, 16)), t, z)
    torch.testing.assert_close(seen[0] - seen[1], sketch(z, (8, 8)))

"""The networks: shapes, laws of points, conditioning."""

import pytest
import torch
from torch import nn

from infdiff.coordinates import pixel_coordinates
from infdiff.models import GridUNet, SparseEncoder, SparseUNet
from infdiff.models.grid_unet import GridDown
from infdiff.nn.norm import GridLayerNorm, ModulatedLayerNorm
from infdiff.points import all_points, draw_points

GRID = {
    "in_channels": 8,
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_sizes": (4,),
    "size": 8,
    "dropout": 0.0,
    "dropout_size": 4,
}


def randomise(module):
    """Zero initialisation would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def denoiser(z_dim=5, **options):
    torch.manual_seed(0)
    unet = GridUNet(out_channels=8, condition_dim=16, **GRID)
    arguments = {"base": (16, 16), "grid": (8, 8), "channels": 8, "kernel_size": 3, "blocks": 2, "condition_dim": 16}
    return randomise(SparseUNet(unet, z_dim=z_dim, **arguments | options))


def encoder():
    torch.manual_seed(0)
    trunk = GridDown(condition_dim=0, **GRID)
    return randomise(SparseEncoder(trunk, base=(16, 16), grid=(8, 8), z_dim=5, channels=8, kernel_size=3, blocks=2))


def inputs(size, count, batch=2, channels=3):
    generator = torch.Generator().manual_seed(2)
    ids = draw_points(batch, count, size, generator)
    x = torch.randn(batch, count, channels, generator=generator, dtype=torch.float64)
    t = torch.tensor([100, 900])[:batch]
    z = torch.randn(batch, 5, generator=generator, dtype=torch.float64)
    return ids, x, t, z


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


def test_slices_of_points_change_nothing(monkeypatch):
    model = denoiser()
    ids, x, t, z = inputs((16, 16), 100)
    geometry = model.geometry(ids, (16, 16))
    whole = model(x, geometry, t, z)
    monkeypatch.setattr("infdiff.nn.sparse_block._ROWS_AT_ONCE", 7)
    with torch.no_grad():
        torch.testing.assert_close(model(x, geometry, t, z), whole)


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
    from infdiff import ops

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


def test_encoder_gives_a_code_from_any_subset():
    model = encoder()
    for size, count in (((16, 16), 64), ((16, 16), 256), ((40, 24), 100)):
        ids, x, _, _ = inputs(size, count)
        assert model(x, model.geometry(ids, size)).shape == (2, 5)


def test_time_and_code_matter():
    model = denoiser()
    ids, x, t, z = inputs((16, 16), 50)
    geometry = model.geometry(ids, (16, 16))
    base = model(x, geometry, t, z)
    assert not torch.allclose(model(x, geometry, t - 50, z), base)
    assert not torch.allclose(model(x, geometry, t, z + 1), base)


def test_a_code_is_neither_forgotten_nor_forced():
    ids, x, t, z = inputs((16, 16), 50)
    model = denoiser()
    with pytest.raises(ValueError, match="needs a latent code"):
        model(x, model.geometry(ids, (16, 16)), t, None)
    model = denoiser(z_dim=0)
    with pytest.raises(ValueError, match="takes no latent code"):
        model(x, model.geometry(ids, (16, 16)), t, z)


def test_normalisation_is_applied_with_and_without_a_condition(generator):
    norm = ModulatedLayerNorm(6, 4)
    x = 5 + 3 * torch.randn(2, 7, 6, generator=generator)
    plain = torch.nn.functional.layer_norm(x, (6,))
    torch.testing.assert_close(norm(x, None), plain)
    torch.testing.assert_close(norm(x, torch.randn(2, 4, generator=generator)), plain), "starts without modulation"
    nn.init.normal_(norm.modulation.weight)
    condition = torch.randn(2, 4, generator=generator)
    scale, shift = (condition @ norm.modulation.weight.mT).unsqueeze(1).chunk(2, dim=-1)
    torch.testing.assert_close(norm(x, condition), plain * (1 + scale) + shift)


def test_points_and_grids_are_normalised_by_one_implementation(generator):
    rows, grids = ModulatedLayerNorm(6, 4), GridLayerNorm(6, 4)
    nn.init.normal_(rows.modulation.weight)
    grids.load_state_dict(rows.state_dict())
    x, condition = torch.randn(2, 6, 3, 5, generator=generator), torch.randn(2, 4, generator=generator)
    expected = rows(x.flatten(2).mT, condition).mT.unflatten(2, (3, 5))
    torch.testing.assert_close(grids(x, condition), expected)


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (7, 5)])
def test_unet_keeps_any_grid_size(size):
    torch.manual_seed(0)
    unet = randomise(GridUNet(out_channels=3, condition_dim=4, **GRID))
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    assert unet(x, torch.ones(2, 4, dtype=torch.float64)).shape == (2, 3, *size)


def test_checkpoints_keep_their_names_and_optimisers_their_order():
    unet = GridUNet(out_channels=3, condition_dim=4, **GRID)
    assert [name for name, _ in unet.named_children()] == [
        "down",
        "middle",
        "layout",
        "levels",
        "enlargements",
        "conv_out",
    ]
    assert [name for name, _ in unet.down.named_children()] == ["conv_in", "levels", "reductions"]
    block = ["norm_in", "conv_in", "norm_out", "conv_out", "skip", "attention"]
    assert [name for name, _ in unet.middle[0].named_children()] == block

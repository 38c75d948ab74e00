"""Modulated normalisation of points and grids."""

import torch
from torch import nn

from infdiff.nn.norm import GridLayerNorm, ModulatedLayerNorm


def test_normalisation_is_applied_with_and_without_a_condition(generator):
    norm = ModulatedLayerNorm(6, 4)
    x = 5 + 3 * torch.randn(2, 7, 6, generator=generator)
    plain = torch.nn.functional.layer_norm(x, (6,))
    torch.testing.assert_close(norm(x, None), plain)
    torch.testing.assert_close(norm(x, torch.randn(2, 4, generator=generator)), plain)  # it starts without modulation
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


def test_a_latent_of_its_own_scales_what_the_rest_of_the_condition_has_modulated(generator):
    norm = ModulatedLayerNorm(6, 4, 3)
    x, condition = torch.randn(2, 7, 6, generator=generator), torch.randn(2, 7, generator=generator)
    plain = torch.nn.functional.layer_norm(x, (6,))
    torch.testing.assert_close(norm(x, condition), plain)  # it starts without
    for layer in (norm.modulation, norm.latent_scale):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    t, z = condition[:, None, :4], condition[:, None, 4:]
    scale, shift = norm.modulation(t).chunk(2, dim=-1)
    expected = (plain * (1 + scale) + shift) * (1 + norm.latent_scale(z))
    torch.testing.assert_close(norm(x, condition), expected)

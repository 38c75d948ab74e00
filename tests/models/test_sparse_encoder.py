"""The encoder."""

import torch

from infdiff.models import GridDown, SparseEncoder
from tests.models.networks import GRID, inputs, randomise


def encoder(**options):
    torch.manual_seed(0)
    trunk = GridDown(condition_dim=0, **GRID)
    return randomise(
        SparseEncoder(trunk, base=(16, 16), grid=(8, 8), z_dim=5, channels=8, kernel_size=3, blocks=2, **options)
    )


def test_it_gives_a_latent_from_any_subset():
    model = encoder()
    for size, count in (((16, 16), 64), ((16, 16), 256), ((40, 24), 100)):
        ids, x, _, _ = inputs(size, count)
        assert model(x, model.geometry(ids, size)).shape == (2, 5)


def test_the_sketch_reads_the_values_directly():
    """The latent moves with the mean colour of one cell by the sketch's weights, and as the trunk says besides."""
    plain, direct = encoder(), encoder(sketch_side=2)
    for name, parameter in plain.named_parameters():
        dict(direct.named_parameters())[name].data.copy_(parameter.data)
    ids, x, _, _ = inputs((16, 16), 256)
    geometry = direct.geometry(ids, (16, 16))
    plain.eval(), direct.eval()
    image = x.mT.unflatten(2, (16, 16))
    colours = torch.nn.functional.adaptive_avg_pool2d(image, 2).flatten(1)
    difference = direct(x, geometry) - plain(x, geometry)
    expected = direct.sketch(colours) / (direct.standardize.variance + 1e-6).sqrt()
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


def test_global_pooling_reads_the_mean_of_the_cells():
    """As coarse pooling does whose weights are the same for every cell: the grid is 4 x 4 at the bottom."""
    coarse, whole = encoder(standardized=False), encoder(standardized=False, global_pooling=True)
    weights = whole.state_dict()
    weights["project.weight"] = weights["project.weight"].repeat_interleave(16, dim=1) / 16
    coarse.load_state_dict(weights)
    ids, x, _, _ = inputs((16, 16), 100)
    geometry = whole.geometry(ids, (16, 16))
    torch.testing.assert_close(whole(x, geometry), coarse(x, geometry))


def test_latents_are_left_as_they_are_without_standardisation():
    plain, standardized = encoder(standardized=False), encoder()
    standardized.load_state_dict(plain.state_dict(), strict=False)
    for _ in range(3):  # running estimates of several batches
        ids, x, _, _ = inputs((16, 16), 100)
        standardized(x, standardized.geometry(ids, (16, 16)))
    geometry = plain.geometry(ids, (16, 16))
    estimates = standardized.eval().standardize
    expected = (plain(x, geometry) - estimates.mean) / (estimates.variance + 1e-6).sqrt()
    torch.testing.assert_close(standardized(x, geometry), expected)

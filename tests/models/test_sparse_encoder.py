"""The encoder."""

import torch

from infdiff.models import GridDown, SparseEncoder
from tests.models.networks import GRID, inputs, randomise


def encoder():
    torch.manual_seed(0)
    trunk = GridDown(condition_dim=0, **GRID)
    return randomise(SparseEncoder(trunk, base=(16, 16), grid=(8, 8), z_dim=5, channels=8, kernel_size=3, blocks=2))


def test_it_gives_a_latent_from_any_subset():
    model = encoder()
    for size, count in (((16, 16), 64), ((16, 16), 256), ((40, 24), 100)):
        ids, x, _, _ = inputs(size, count)
        assert model(x, model.geometry(ids, size)).shape == (2, 5)

"""Embeddings of points and of diffusion times."""

import pytest
import torch

from infdiff.nn.embedding import Conditioning, PointLift, sinusoidal_embedding


def test_a_lift_depends_on_value_and_place(generator):
    # In float64: a product of matrices rounds its rows by their place in it.
    lift = PointLift(3, 8).double()
    x, place = torch.randn(2, 5, 3, generator=generator).double(), torch.rand(1, 5, 2, generator=generator).double()
    out = lift(x, place)
    assert out.shape == (2, 5, 8)
    assert not torch.allclose(lift(x, place.flip(1)), out)
    torch.testing.assert_close(lift(x, place.expand(2, -1, -1)), out)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(lift(x[:, order], place[:, order]), out[:, order])


def test_times_have_different_embeddings():
    embedding = sinusoidal_embedding(torch.arange(1, 1001), 128)
    assert torch.cdist(embedding, embedding).fill_diagonal_(9).min() > 0.1


def test_a_lift_without_positions_depends_on_values_alone(generator):
    lift = PointLift(3, 8, positions=False)
    x, place = torch.randn(2, 5, 3, generator=generator), torch.rand(1, 5, 2, generator=generator)
    assert torch.equal(lift(x, place), lift(x, place.flip(1)))
    assert lift.linear.weight.shape == (8, 3)


def test_a_separate_latent_follows_the_embedding_of_time(generator):
    t, z = torch.tensor([3, 700]), torch.randn(2, 5, generator=generator)
    condition = Conditioning(dim=8, z_dim=5, separate=True)
    out = condition(t, z)
    assert out.shape == (2, condition.width) == (2, 13)
    assert torch.equal(out[:, 8:], z)
    assert torch.equal(condition(t, z + 1)[:, :8], out[:, :8]), "time alone decides the rest"
    shared = Conditioning(dim=8, z_dim=5)
    assert shared(t, z).shape == (2, shared.width) == (2, 8)
    without = Conditioning(dim=8, z_dim=0, separate=True)
    assert without(t, None).shape == (2, without.width) == (2, 8)
    for one, given in ((condition, None), (without, z)):
        with pytest.raises(ValueError, match="latent z"):
            one(t, given)

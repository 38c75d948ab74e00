"""Embeddings of points and of diffusion times."""

import torch

from infdiff.nn.embedding import PointLift, sinusoidal_embedding


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

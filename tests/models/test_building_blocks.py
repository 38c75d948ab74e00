"""Small parts with laws of their own."""

import pytest
import torch

from infdiff.nn.embedding import PointLift, sinusoidal_embedding
from infdiff.nn.standardize import Standardize


def test_standardize_gives_mean_zero_and_variance_one_and_remembers(generator):
    layer = Standardize(3)
    data = torch.randn(400, 8, 3, generator=generator) * torch.tensor([5.0, 0.01, 1.0]) + torch.tensor([0.0, 3.0, -9.0])
    for batch in data:
        out = layer(batch)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.var(dim=0), torch.ones(3), rtol=0, atol=0.02)
    layer.eval()
    one = layer(data[7, :1])
    assert torch.equal(layer(data[7])[:1], one), "afterwards an image's code is its own"
    everything = layer(data.flatten(0, 1))
    assert everything.mean(dim=0).abs().max() < 0.3
    torch.testing.assert_close(everything.std(dim=0), torch.ones(3), rtol=0, atol=0.15)


def test_a_common_push_on_all_codes_has_no_gradient(generator):
    """What drove encoders to a constant before the denoiser had learnt to read them."""
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    Standardize(4).double()(x).sum().backward()
    assert x.grad.abs().max() < 1e-9


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_batch_leaves_the_estimates_alone(generator, value):
    layer = Standardize(2)
    layer(torch.randn(8, 2, generator=generator))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    bad = torch.randn(8, 2, generator=generator)
    bad[3, 1] = value
    layer(bad)
    layer(torch.zeros(1, 2))
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name])


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

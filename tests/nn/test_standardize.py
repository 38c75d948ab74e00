"""Standardised latents: mean 0 and variance 1, and what they protect the encoder from."""

import pytest
import torch

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
    assert torch.equal(layer(data[7])[:1], one), "afterwards an image's latent does not depend on the batch"
    everything = layer(data.flatten(0, 1))
    assert everything.mean(dim=0).abs().max() < 0.3
    torch.testing.assert_close(everything.std(dim=0), torch.ones(3), rtol=0, atol=0.15)


def test_a_common_push_on_all_latents_has_no_gradient(generator):
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

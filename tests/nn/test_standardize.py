"""Standardised latents: mean 0 and variance 1, and what they protect the encoder from."""

import pytest
import torch

from infdiff.nn.standardize import Standardize

DATA = torch.tensor([5.0, 0.01, 1.0]), torch.tensor([0.0, 3.0, -9.0])


def batches(generator, count=400):
    return torch.randn(count, 8, 3, generator=generator) * DATA[0] + DATA[1]


def test_standardize_gives_mean_zero_and_variance_one_and_remembers(generator):
    layer = Standardize(3)
    out = torch.stack([layer(batch) for batch in batches(generator)])[100:]
    torch.testing.assert_close(out.mean(dim=(0, 1)), torch.zeros(3), rtol=0, atol=0.1)
    torch.testing.assert_close(out.var(dim=(0, 1)), torch.ones(3), rtol=0, atol=0.1)
    layer.eval()
    data = batches(generator)
    assert torch.equal(layer(data[7])[:1], layer(data[7, :1])), "an image's latent does not depend on the batch"
    everything = layer(data.flatten(0, 1))
    assert everything.mean(dim=0).abs().max() < 0.3
    torch.testing.assert_close(everything.std(dim=0), torch.ones(3), rtol=0, atol=0.15)


def test_what_is_measured_is_exact_whatever_the_estimates_were(generator):
    """Mean 0 and variance 1 of all that came in, in batches of any size."""
    layer = Standardize(3).eval()
    data = batches(generator, 20).flatten(0, 1)
    with layer.measuring():
        for part in data.split([1, 100, 59]):
            layer(part)
    out = layer(data)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.var(dim=0, correction=0), torch.ones(3), rtol=0, atol=0.02)


def test_latents_carry_less_noise_than_a_batchs_own_statistics_would_give_them(generator):
    """The same image among others: its latent moves by a few percent, not by 1 / sqrt(8)."""
    layer = Standardize(3)
    image = DATA[1] + DATA[0]
    seen = []
    for batch in batches(generator):
        batch[0] = image
        seen.append(layer(batch)[0])
    assert torch.stack(seen[200:]).std(dim=0).max() < 0.15


def test_a_common_push_on_all_latents_has_no_gradient(generator):
    """What drove encoders to a constant before the denoiser had learnt to read them."""
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    Standardize(4).double()(x).sum().backward()
    assert x.grad.abs().max() < 1e-9


def test_what_makes_all_latents_larger_has_no_gradient(generator):
    """Estimates follow late: an encoder that grows would have louder latents for as long as it does."""
    layer = Standardize(4).double()
    x = 3 + 2 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    push = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer(x) * push).sum(), x)
    assert gradient.abs().max() > 0.1
    assert (gradient * (x - x.mean(dim=0))).sum(dim=0).abs().max() < 1e-5
    assert gradient.sum(dim=0).abs().max() < 1e-9


def test_an_encoder_that_grows_gains_nothing(generator):
    """Growing by gradients that want louder latents, it would never stop."""
    layer = Standardize(2)
    scale = torch.ones(2, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(
            -layer(scale * torch.randn(16, 2, generator=generator)).square().mean(), scale
        )
        scale = (scale - 0.05 * gradient).detach().requires_grad_()
    torch.testing.assert_close(scale.detach(), torch.ones(2), rtol=0, atol=0.01)


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

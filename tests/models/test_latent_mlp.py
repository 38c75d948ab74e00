"""The latent model's MLP."""

import pytest
import torch

from infdiff.models.latent_mlp import LatentMLP


def test_the_published_size():
    # 512-dimensional latents, 10 layers of 2048: every layer reads the latent again.
    count = sum(p.numel() for p in LatentMLP(512).parameters())
    linear = 512 * 2048 + 8 * (2048 + 512) * 2048 + (2048 + 512) * 512 + 9 * 2048 + 512
    time = 64 * 2048 + 2048 + 2048 * 2048 + 2048
    modulation = 9 * (2048 * 2048 + 2048)
    assert count == linear + time + modulation + 9 * 2 * 2048


def test_it_reads_the_time_once_trained(generator):
    network = LatentMLP(3, width=16, layers=3)
    z = torch.randn(4, 3, generator=generator)
    early, late = torch.full((4,), 1), torch.full((4,), 900)
    torch.testing.assert_close(network(z, early), network(z, late))  # the scale starts at 1
    for layer in network.hidden:
        torch.nn.init.normal_(layer.scale.weight)
    assert not torch.allclose(network(z, early), network(z, late))


def test_it_learns_the_noise(generator):
    network = LatentMLP(2, width=64, layers=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(200):
        noise = torch.randn(128, 2, generator=generator)
        t = torch.full((128,), 500)
        loss = (network(noise + 3, t) - noise).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]


def test_one_layer_is_refused():
    with pytest.raises(ValueError, match="layers"):
        LatentMLP(4, layers=1)

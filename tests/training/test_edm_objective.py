"""The objective of EDM: its value for networks whose error is known, its draws, and images of several sizes."""

import pytest
import torch
from torch import nn

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollifier import Mollifier
from infdiff.training.objectives import EDMObjective


class Recorder(nn.Module):
    """Stands in for the network, remembers its inputs and answers with zeros."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, c_noise):
        self.calls.append((x, c_noise))
        return torch.zeros_like(x)


def images(size=(12, 12), batch=5):
    return torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)


def run(seed=0, of=None, flip=False, network=None, **options):
    network = Recorder() if network is None else network
    of = images() if of is None else of
    objective = EDMObjective(EDM(**options), flip=flip)
    return objective({"denoiser": network}, of, torch.Generator().manual_seed(seed)), network


def test_the_draws_are_the_generators_alone():
    assert torch.equal(run(3)[0], run(3)[0])
    assert not torch.equal(run(3)[0], run(4)[0])


@pytest.mark.parametrize("size", [(12, 12), (9, 20), (32, 32)])
def test_a_network_of_zeros_costs_the_variance_of_its_target(size):
    """That is 1, at every noise level and size, when sigma_data is that of the images: here 2 / sqrt(12)."""
    losses = torch.stack([run(seed, images(size, 16), sigma_data=3**-0.5)[0] for seed in range(30)])
    assert losses.mean().item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("mollifier", [None, Mollifier(1.0, (12, 12))])
def test_the_loss_is_that_of_the_target_in_units_of_the_network(mollifier):
    """mean |F - (y - c_skip x) / c_out|^2: what the weighted error of D is, worked out from what the network saw."""
    process = EDM()

    class Wavy(Recorder):
        def forward(self, x, c_noise):
            super().forward(x, c_noise)
            return torch.sin(3 * x)

    loss, network = run(network=Wavy(), mollifier=mollifier)
    scaled, c_noise = network.calls[0]
    sigma = (4 * c_noise).exp()
    skip, out, scale, _ = (c.view(-1, 1, 1, 1) for c in process.preconditioning(sigma))
    clean = images() / 127.5 - 1
    target = ((clean if mollifier is None else mollifier(clean)) - skip * scaled / scale) / out
    torch.testing.assert_close(loss, (torch.sin(3 * scaled) - target).square().mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("mollified", [False, True])
def test_the_network_sees_images_of_variance_1_at_every_size(mollified):
    black = torch.zeros(64, 3, 16, 24, dtype=torch.uint8)  # y = -1 everywhere, also after T
    mollifier = Mollifier(1.0, (8, 12)) if mollified else None
    _, network = run(of=black, mollifier=mollifier)
    scaled, c_noise = network.calls[0]
    sigma = (4 * c_noise).exp().view(-1, 1, 1, 1)
    noise = (scaled * (sigma**2 + 0.25).sqrt() + 1) / sigma
    assert noise[..., 4:-4, 4:-4].std().item() == pytest.approx(1.0, rel=0.05)
    alike = (noise[..., 1:] * noise[..., :-1]).mean().item()
    assert (alike > 0.8) == mollified


def test_flips_reverse_the_columns():
    one_side = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    one_side[..., :4] = 255
    _, network = run(of=one_side, flip=True)
    scaled, c_noise = network.calls[0]
    low = (4 * c_noise).exp() < 0.5
    left = scaled[low][..., :4].mean(dim=(1, 2, 3)) > scaled[low][..., 4:].mean(dim=(1, 2, 3))
    assert 0.25 < left.float().mean() < 0.75
    _, network = run(of=one_side)
    scaled, c_noise = network.calls[0]
    low = (4 * c_noise).exp() < 0.5
    assert (scaled[low][..., :4].mean(dim=(1, 2, 3)) > scaled[low][..., 4:].mean(dim=(1, 2, 3))).all()


def test_a_weighting_comes_on_top_of_lambda():
    def loss(weighting):
        objective = EDMObjective(EDM(), flip=False, weighting=weighting)
        return objective({"denoiser": Recorder()}, images(), torch.Generator().manual_seed(0))

    assert torch.equal(loss(torch.ones_like), run()[0])
    torch.testing.assert_close(loss(lambda snr: 3 * torch.ones_like(snr)), 3 * run()[0])
    seen = []
    loss(lambda snr: seen.append(snr) or torch.ones_like(snr))
    c_noise = run()[1].calls[0][1]
    torch.testing.assert_close(seen[0], (0.5 / (4 * c_noise).exp()) ** 2)


def test_a_network_can_learn_from_it():
    """One constant image: the best F is known up to noise, and a linear layer of c_noise comes near it."""
    torch.manual_seed(0)

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.taps = nn.Conv2d(4, 3, 1)

        def forward(self, x, c_noise):
            level = c_noise.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
            return self.taps(torch.cat([x, level], dim=1))

    network, generator = Linear(), torch.Generator().manual_seed(0)
    objective = EDMObjective(EDM(), flip=False)
    picture = torch.full((16, 3, 6, 6), 200, dtype=torch.uint8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    losses = []
    for _ in range(200):
        loss = objective({"denoiser": network}, picture, generator)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])

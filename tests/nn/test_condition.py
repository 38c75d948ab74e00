"""What all norms of a network make of a condition, together and one by one."""

import copy

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.nn import condition as conditions
from infdiff.nn.condition import Condition
from infdiff.points import draw_points
from tests.conftest import TINY, TINY_EDM, TINY_GRID

NETWORKS = {
    "points": [*TINY, "model.gated_input=true"],
    "separate": [*TINY, "model.separate_latent=true", "model.layout=true"],
    "points alone": [*TINY, "model.grid={kind: sparse, channels: 8, multipliers: [1, 2], blocks: 1}"],
    "unet": [*TINY_EDM, "model.grid.attention_sizes=[8]"],
    "dfu": TINY_GRID,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_together_is_as_one_by_one(name, monkeypatch):
    config = load_config("demo", NETWORKS[name])
    generator = torch.Generator().manual_seed(0)
    network = build_modules(config)["denoiser"].eval().double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    images = torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    t = torch.tensor([3.0, 700.0], dtype=torch.float64)
    z = torch.randn(2, config.latent_dim, generator=generator).double() if config.latent_dim else None
    ids = draw_points(2, 128, (16, 16), generator)

    def results(network):
        if config.method == "edm":
            out = network(images, t)
        else:
            out = network(images.flatten(2).mT[:, :128], network.geometry(ids, (16, 16)), t, z)
        return out, *torch.autograd.grad(out.square().sum(), list(network.parameters()), allow_unused=True)

    wanted = results(network)
    monkeypatch.setattr(conditions, "_ONE_BY_ONE", ())
    made = []
    monkeypatch.setattr(
        conditions, "Condition", type("Seen", (Condition,), {"__init__": lambda self, *_: made.append(1)})
    )
    for model in (network, copy.deepcopy(network)):
        for a, b in zip(results(model), wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert len(made) == 2

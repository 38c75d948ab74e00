"""Weights that are cast together, against autocast, which casts them one by one."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules, method_of
from infdiff.training import narrow_weights
from infdiff.training.narrow_weights import bfloat16_weights
from tests.conftest import TINY, TINY_EDM, TINY_GRID

NETWORKS = {
    "points": [*TINY, "model.sharp=true", "model.gated_input=true"],
    "nonlinear": [*TINY, "model.nonlinear_kernel=true", "model.depthwise=false", "model.separate_latent=true"],
    "unet": [*TINY_EDM, "model.grid.attention_sizes=[8]"],
    "dfu": [*TINY_GRID, "data.augment=0.1"],
}


def gradients(config, together, frozen=()):
    """Loss, and the gradients of all weights, from one bfloat16 step on a CPU."""
    torch.manual_seed(0)
    modules = build_modules(config)
    for module in modules.values():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
            parameter.requires_grad_(name not in frozen)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    weights = bfloat16_weights(modules.values()) if together else nullcontext()
    with torch.autocast("cpu", torch.bfloat16), weights:
        loss = method_of(config).objective()(modules, images, torch.Generator().manual_seed(1))
    before = {name: dict(module.named_parameters()) for name, module in modules.items()}
    assert all(isinstance(p, nn.Parameter) for named in before.values() for p in named.values())
    loss.backward()
    return loss, {(name, key): p.grad for name, named in before.items() for key, p in named.items()}


@pytest.mark.parametrize("groups", ["one", "many"])
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_are_those_of_autocast_to_the_last_bit(name, groups, monkeypatch):
    config = load_config("demo", NETWORKS[name])
    loss, wanted = gradients(config, together=False)
    if groups == "many":
        monkeypatch.setattr(narrow_weights, "_GROUP", 100)
    other, found = gradients(config, together=True)
    assert torch.equal(loss, other)
    assert sum(g is not None and g.abs().sum() > 0 for g in wanted.values()) > len(wanted) / 2
    for key, gradient in wanted.items():
        assert (gradient is None) == (found[key] is None), key
        if gradient is not None:
            assert found[key].dtype == torch.float32
            assert torch.equal(gradient, found[key]), key


def test_frozen_weights_have_no_gradient():
    config = load_config("demo", NETWORKS["unet"])
    frozen = [key for key, _ in build_modules(config)["denoiser"].named_parameters() if "weight" in key][::2]
    _, wanted = gradients(config, together=False, frozen=frozen)
    _, found = gradients(config, together=True, frozen=frozen)
    for key, gradient in wanted.items():
        assert (gradient is None) == (found[key] is None), key
        if gradient is not None:
            assert torch.equal(gradient, found[key]), key


def test_weights_come_back_after_an_error():
    layer = nn.Linear(2, 3)
    weight = layer.weight
    with bfloat16_weights([layer]) as copies:
        assert [copy.dtype for copy in copies] == [torch.bfloat16] * 2
        assert layer.weight is copies[0]
    assert layer.weight is weight
    with pytest.raises(ZeroDivisionError), bfloat16_weights([layer]):
        raise ZeroDivisionError
    assert layer.weight is weight
    assert isinstance(layer.weight, nn.Parameter)


class Small(nn.Module):
    """A network of this module, since Dynamo does not trace PyTorch's own as such."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated", "ignore:The .grad attribute")
def test_compiled_networks_take_them_without_another_compilation():
    network = Small()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

    def step():
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), bfloat16_weights([network]):
            network(x).sum().backward()
        return [p.grad.clone() for p in network.parameters()]

    wanted = step()
    counter = CompileCounterWithBackend("aot_eager")
    network.compile(backend=counter, dynamic=False)
    for _ in range(3):
        for a, b in zip(step(), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert counter.frame_count == 1

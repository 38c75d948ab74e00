"""Networks as they run on CUDA, every kernel emulated: losses and gradients are those of the CPU's operators."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules, method_of
from infdiff.nn import condition, norm, recompute, sparse_block
from infdiff.points import draw_points
from tests.conftest import TINY

SIZE = (16, 16)


@pytest.fixture(scope="module")
def networks():
    config = load_config("demo", [*TINY, "model.grid.attention_sizes=[8,4]", "model.grid.dropout=0.0"])
    torch.manual_seed(0)
    modules = build_modules(config)
    for module in modules.values():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return method_of(config).objective(), modules


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Call to take the ways of a CUDA device from then on."""

    def switch():
        for module in (norm, sparse_block):
            monkeypatch.setattr(module, "by_steps", lambda x: False)
        monkeypatch.setattr(condition, "_ONE_BY_ONE", ())
        monkeypatch.setattr(recompute, "recomputes", lambda x: not torch.compiler.is_compiling())

    return switch


def test_losses_and_gradients_are_those_of_a_cpu(networks, as_on_cuda, request):
    objective, modules = networks
    images = torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def results():
        loss = objective(modules, images, torch.Generator().manual_seed(3))
        parameters = {f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters()}
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.detach(), dict(zip(parameters, gradients, strict=True))

    wanted_loss, wanted = results()
    as_on_cuda()
    emulated = request.getfixturevalue("emulated")
    loss, gradients = results()
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    ways = {"permuted_pixels", "modulated_norm", "modulated_norm_backward", "listed_conv", "listed_taps", "scaled_rows"}
    assert ways <= emulated.launched


def test_a_network_is_compiled_in_one_graph(networks, as_on_cuda):
    as_on_cuda()
    denoiser = networks[1]["denoiser"]
    generator = torch.Generator().manual_seed(0)
    geometry = denoiser.geometry(draw_points(2, 64, SIZE, generator), SIZE)
    inputs = torch.randn(2, 64, 3, generator=generator), geometry, torch.tensor([3, 5]), torch.randn(2, 8)
    compiled = torch.compile(denoiser.forward, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), denoiser(*inputs))

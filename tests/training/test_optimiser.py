"""Muon against the singular values that it is defined by, against torch's own, and beside AdamW."""

import pytest
import torch
from torch import nn

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.training.optimiser import Optimiser, is_matrix, orthogonalised
from infdiff.training.settings import OptimiserSettings
from infdiff.training.trainer import _outer


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_singular_vectors_stay_and_values_follow_the_quintic(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices / matrices.norm(dim=(1, 2), keepdim=True), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert values.min() > 0.6
    assert values.max() < 1.3
    expected = left @ torch.diag_embed(values) @ right
    torch.testing.assert_close(orthogonalised(matrices), expected, atol=2e-4, rtol=0)


def modules() -> nn.ModuleDict:
    torch.manual_seed(0)
    layers = {"linear": nn.Linear(32, 48), "conv": nn.Conv2d(16, 24, 3), "taps": nn.Conv2d(32, 32, 5, groups=32)}
    return nn.ModuleDict(layers | {"read": nn.Linear(3, 32)})


def optimiser_of(model: nn.Module, **settings) -> Optimiser:
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimiser = Optimiser(names, parameters, OptimiserSettings(optimiser="muon", muon_scale=1.0, **settings))
    optimiser.rate.fill_(1e-2)
    return optimiser


def with_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


GOOD, BAD = torch.zeros(()), torch.ones(())


def test_matrices_are_those_between_features():
    matrices = {name for name, p in modules().named_parameters() if is_matrix(p)}
    assert matrices == {"linear.weight", "conv.weight"}


def test_as_torchs_muon_and_adamw():
    model, reference = modules(), modules()
    model.conv.to(memory_format=torch.channels_last)
    ours = optimiser_of(model, weight_decay=0.1)
    # torch's Muon takes matrices alone, and orthogonalises in bfloat16.
    flat = nn.Parameter(reference.conv.weight.detach().flatten(1))
    muon = torch.optim.Muon([reference.linear.weight, flat], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [p for name, p in reference.named_parameters() if name not in ("linear.weight", "conv.weight")]
    adamw = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    for step in range(3):
        with_gradients(model, step)
        with_gradients(reference, step)
        flat.grad = reference.conv.weight.grad.flatten(1)
        ours.step(GOOD)
        muon.step()
        adamw.step()
    moved = (reference.linear.weight - modules().linear.weight).square().mean().sqrt()
    for own, other in [(model.linear.weight, reference.linear.weight), (model.conv.weight.flatten(1), flat)]:
        assert (own - other).square().mean().sqrt() < 0.02 * moved
    for name, parameter in reference.named_parameters():
        if not is_matrix(parameter):
            torch.testing.assert_close(dict(model.named_parameters())[name], parameter)


def test_a_bad_step_changes_nothing_and_a_frozen_parameter_stays():
    model = modules()
    optimiser = optimiser_of(model)
    with_gradients(model, 0)
    optimiser.step(GOOD)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = {name: value.clone() for name, value in optimiser.state().items()}
    with_gradients(model, 1)
    model.conv.weight.grad[0] = torch.nan
    model.taps.weight.grad[0] = torch.nan
    optimiser.step(BAD)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(value, state[name]) for name, value in optimiser.state().items())
    with_gradients(model, 2)
    model.linear.weight.grad = None
    optimiser.step(GOOD)
    assert torch.equal(model.linear.weight, before["linear.weight"])
    assert not torch.equal(model.conv.weight, before["conv.weight"])
    assert all(p.grad is None for p in model.parameters())


def test_state_resumes_bit_for_bit():
    def run(stop: int | None) -> dict[str, torch.Tensor]:
        model = modules()
        optimiser = optimiser_of(model)
        for step in range(4):
            if step == stop:
                state, weights = optimiser.state(), model.state_dict()
                model = modules()
                model.load_state_dict(weights)
                optimiser = optimiser_of(model)
                optimiser.load_state(state, torch.device("cpu"))
            with_gradients(model, step)
            optimiser.step(GOOD)
        return model.state_dict()

    whole, resumed = run(None), run(2)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_outer_layers_stay_with_adamw():
    names, parameters = zip(*modules().named_parameters(), strict=True)
    optimiser = Optimiser(names, parameters, OptimiserSettings(optimiser="muon"), {"linear.weight"})
    assert set(optimiser.matrices) == {"conv.weight"}
    assert "linear.weight" in optimiser.others


def test_outer_layers_of_the_networks_exist():
    networks = build_modules(load_config("demo", ["model.sharp=false"]))
    outer = _outer(networks)
    for name, network in networks.items():
        for layer in network.outer_layers:
            assert f"{name}.{layer}.weight" in outer or f"{name}.{layer}.linear.weight" in outer, layer
    assert "denoiser.sketch.linear.weight" not in outer

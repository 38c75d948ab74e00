"""Normalisation, modulation and SiLU as one operator, against the formula and PyTorch's own gradients."""

import itertools

import pytest
import torch

from infdiff import ops
from infdiff.benchmark.launches import SavedForBackward

B, L, C = 3, 5, 6


def arguments(dtype, modulated, scaled):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return draw(B, L, C), draw(C), draw(C), draw(B, 2 * C) if modulated else None, draw(B, C) if scaled else None


KINDS = [(m, s, silu) for m, s, silu in itertools.product((False, True), repeat=3) if m or not s]


@pytest.mark.parametrize(("modulated", "scaled", "silu"), KINDS)
def test_it_is_the_formula(modulated, scaled, silu):
    x, weight, bias, modulation, latent = arguments(torch.float64, modulated, scaled)
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    for image in range(B):
        if modulation is not None:
            y = y.clone()
            y[image] = y[image] * (1 + modulation[image, :C]) + modulation[image, C:]
        if latent is not None:
            y[image] = y[image] * (1 + latent[image])
    y = y * torch.sigmoid(y) if silu else y
    for norm in (ops.modulated_norm, ops.modulated_norm_ref, ops.modulated_norm_stepwise):
        torch.testing.assert_close(norm(x, weight, bias, modulation, latent, silu), y)


@pytest.mark.parametrize(("modulated", "scaled", "silu"), KINDS)
def test_its_gradients_are_those_of_the_reference(modulated, scaled, silu):
    given = arguments(torch.float64, modulated, scaled)
    inputs = [a for a in given if a is not None]
    grad = torch.randn(B, L, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = torch.autograd.grad(ops.modulated_norm(*given, silu), inputs, grad)
    assert torch.autograd.gradcheck(lambda *a: ops.modulated_norm(*a, *given[len(a) :], silu), inputs)
    torch.testing.assert_close(own, torch.autograd.grad(ops.modulated_norm_ref(*given, silu), inputs, grad))


@pytest.mark.parametrize("silu", [False, True])
def test_bfloat16_is_that_of_float32_rounded_once(silu):
    given = arguments(torch.bfloat16, True, True)
    wide = ops.modulated_norm_ref(*(a.float() for a in given), silu)
    out = ops.modulated_norm(*given, silu)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, wide.bfloat16())


def test_it_keeps_its_arguments_alone():
    given = arguments(torch.bfloat16, True, True)
    with SavedForBackward(given) as saved:
        ops.modulated_norm(*given, True)
    assert saved.nbytes() == 0
    with SavedForBackward(given) as saved:
        ops.modulated_norm_ref(*given, True)
    assert saved.nbytes() > 4 * B * L * C


def test_what_does_not_fit_is_named():
    x, weight, bias, modulation, latent = arguments(torch.float32, True, True)
    with pytest.raises(ValueError, match=r"modulation .*want \(3, 12\)"):
        ops.modulated_norm(x, weight, bias, latent)
    with pytest.raises(ValueError, match="latent_scale without"):
        ops.modulated_norm(x, weight, bias, None, latent)
    with pytest.raises(ValueError, match="latent_scale"):
        ops.modulated_norm(x, weight, bias, modulation, modulation)


def passing_by_hand(x, added, *others):
    total = x + added
    return ops.modulated_norm_ref(total, *others), total


@pytest.mark.parametrize(("modulated", "scaled", "silu"), KINDS)
@pytest.mark.parametrize("used", ["both", "norm", "total"])
def test_what_is_passed_on_brings_its_gradient_along(used, modulated, scaled, silu):
    x, *others = arguments(torch.float64, modulated, scaled)
    added = torch.randn(B, L, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.randn(2, B, L, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = [x, added, *(o for o in others if o is not None)]

    def results(passing, *terms):
        normed, total = passing(*terms, *others, silu)
        terms = {"norm": (weights[0] * normed).sum(), "total": (weights[1] * total).sum()}
        loss = sum(terms.values()) if used == "both" else terms[used]
        return [normed, total, *torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)]

    def passing(x, added, *others):
        return ops.modulated_norm_passing(x, *others, added=added)

    wanted = results(passing_by_hand, x, added)
    torch.testing.assert_close(results(passing, x, added), wanted)
    # The same where the sum was made before.
    torch.testing.assert_close(results(lambda total, *o: ops.modulated_norm_passing(total, *o), x + added), wanted)


def test_terms_of_two_types_are_summed_as_pytorch_does():
    x, weight, bias, *_ = arguments(torch.bfloat16, False, False)
    normed, total = ops.modulated_norm_passing(x, weight, bias, added=x.detach().float())
    assert total.dtype == normed.dtype == torch.float32

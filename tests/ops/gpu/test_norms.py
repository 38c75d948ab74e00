"""The kernels of `modulated_norm` against the formula and its derivatives in float64.

Without a GPU they run on the CPU (tests/cuda/emulator.h).
"""

import pytest
import torch

from infdiff import ops
from infdiff.ops.gpu import norms

# Relative to the largest value: roundings of results in the type itself, of sums in float32.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def arguments(device, batch, count, channels, dtype, modulated=True, scaled=True):
    """Input with a mean of its own, weight, bias, modulation and latent scale, and a gradient."""
    generator = torch.Generator().manual_seed(channels)

    def draw(*shape, of=dtype, shift=0.0):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64) + shift
        return drawn.to(device=device, dtype=of)

    x, weight, bias = draw(batch, count, channels, shift=2.0), *(draw(channels, of=torch.float32) for _ in range(2))
    modulation = draw(batch, 2 * channels) if modulated else None
    latent = draw(batch, channels) if scaled else None
    return [x, weight, bias, modulation, latent], draw(batch, count, channels)


def by_formula(x, weight, bias, modulation, latent, silu):
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    if modulation is not None:
        a, b = modulation.unsqueeze(1).chunk(2, dim=-1)
        y = y * (1 + a) + b
    if latent is not None:
        y = y * (1 + latent.unsqueeze(1))
    return y * torch.sigmoid(y) if silu else y


def results(norm, given, grad, silu):
    """Output, and the gradients to everything that is there."""
    given = [None if g is None else g.detach().clone().requires_grad_() for g in given]
    out = norm(*given, silu)
    return out.detach(), *torch.autograd.grad(out, [g for g in given if g is not None], grad.to(out.dtype))


def check(given, grad, silu):
    wide = [None if g is None else g.double() for g in given]
    wanted = results(by_formula, wide, grad.double(), silu)
    found = results(ops.modulated_norm, given, grad, silu)
    tensors = [given[0], *(g for g in given if g is not None)]
    for a, b, like in zip(found, wanted, tensors, strict=True):
        assert a.dtype == like.dtype
        assert a.is_contiguous()
        torch.testing.assert_close(a.double(), b, rtol=0, atol=TOLERANCE[like.dtype] * max(1.0, b.abs().max().item()))
    return found


# Rows of parts of a warp, of warps, of a block, and of several vectors a lane; channels that are no whole vectors.
@pytest.mark.parametrize("channels", [1, 6, 8, 64, 65, 136, 512, 1024, 2056])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_is_the_formula(channels, dtype, device, emulator):
    check(*arguments(device, 2, 21, channels, dtype), silu=True)
    if device.type == "cpu":
        assert emulator.launched == {"modulated_norm", "modulated_norm_backward", "modulated_norm_sums"}


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("modulated", "scaled"), [(False, False), (True, False), (True, True)])
def test_with_and_without_each_part(modulated, scaled, silu, device):
    check(*arguments(device, 3, 10, 16, torch.float32, modulated, scaled), silu)


def test_many_rows_and_images_are_summed_in_pieces(device, monkeypatch):
    # Several rows a lane, several blocks an image, more images than the last sums take at once.
    given, grad = arguments(device, 18, 700, 8, torch.float32)
    found = check(given, grad, silu=False)
    monkeypatch.setattr(norms, "_BLOCKS", 18)
    monkeypatch.setattr(norms, "ROWS", 1)
    for a, b in zip(check(given, grad, silu=False), found, strict=True):
        torch.testing.assert_close(a, b)


def test_rows_of_a_condition_may_lie_apart(device):
    given, grad = arguments(device, 2, 5, 16, torch.bfloat16)
    both = torch.cat([given[3], given[4]], dim=1)
    apart = [*given[:3], *both.split([32, 16], dim=1)]
    assert not apart[3].is_contiguous()
    for a, b in zip(check(apart, grad, silu=True), check(given, grad, silu=True), strict=True):
        assert torch.equal(a, b)


def test_a_condition_may_be_of_another_type(device):
    given, grad = arguments(device, 2, 5, 16, torch.bfloat16)
    check([*given[:3], given[3].float(), given[4].float()], grad, silu=True)
    check([*given[:3], given[3].half(), given[4]], grad, silu=True)


def test_large_values_reach_the_limits_of_silu(device):
    given, grad = arguments(device, 1, 3, 8, torch.float32, modulated=False, scaled=False)
    given[1] = given[1] * 1000
    out, *gradients = check(given, grad, silu=True)
    assert all(g.isfinite().all() for g in gradients)
    assert (out.abs() < 1e-30).any()


def test_wider_types_and_rows_go_to_the_reference(emulated):
    for channels, dtype in ((8, torch.float64), (4104, torch.float32), (513, torch.float32)):
        given, grad = arguments("cpu", 1, 2, channels, dtype)
        wanted = results(by_formula, [g.double() for g in given], grad.double(), False)
        for a, b in zip(results(ops.modulated_norm, given, grad, False), wanted, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)
    assert not emulated.launched


@pytest.mark.parametrize("channels", [1, 65, 136, 2056])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_of_a_sum_that_is_passed_on(channels, dtype, device):
    """The sum is rounded once and normalised as it is; its own gradient joins that of the norm in float32."""
    (x, *others), grad = arguments(device, 2, 21, channels, dtype)
    added, back = grad.flip(1), x.flip(0)

    def results(passing, x, added, *others):
        given = [t.detach().clone().requires_grad_() for t in (x, added, *others)]
        outputs = passing(*given)
        gradients = torch.autograd.grad(outputs, given, [grad.to(outputs[0].dtype), back.to(outputs[1].dtype)])
        return [*(o.detach() for o in outputs), *gradients]

    found = results(lambda x, a, *o: ops.modulated_norm_passing(x, *o, True, a), x, added, *others)
    assert torch.equal(found[1], x + added)
    assert torch.equal(found[2], found[3])
    alone = results(lambda x, a, *o: (ops.modulated_norm_passing(x, *o, True)[0], x + a), found[1], added, *others)
    assert torch.equal(found[0], alone[0])
    # From the rounded sum, in float64.
    wide = results(
        lambda x, a, *o: (by_formula(x + 0 * a, *o, True), x + 0 * a),
        *(t.double() for t in (found[1], added, *others)),
    )
    for a, b in zip([found[2], *found[4:]], [wide[2], *wide[4:]], strict=True):
        near = TOLERANCE[a.dtype] * max(1.0, b.abs().max().item())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=near)

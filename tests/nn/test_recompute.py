"""What is computed again for the backward pass: the same gradients, less memory."""

import pytest
import torch
from torch import nn

from infdiff import ops
from infdiff.benchmark.as_on_cuda import AsOnCuda
from infdiff.benchmark.launches import SavedForBackward
from infdiff.nn import recompute
from infdiff.nn.conv_block import ConvBlock
from infdiff.nn.recompute import applied
from infdiff.nn.spectral_conv import DualConv


def dual(in_channels, channels, gain=1.0):
    return DualConv(in_channels, channels, modes=2, gain=gain)


OPTIONS = {"plain": {}, "attention": {"attention": True}, "dual": {"convolution": dual}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_of_a_block_are_the_same(options, monkeypatch):
    monkeypatch.setattr("infdiff.nn.norm.by_steps", lambda x: False)
    torch.manual_seed(0)
    block = ConvBlock(6, 8, condition_dim=4, latent_dim=3, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    condition = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    inputs, results, kept = [x, condition, *block.parameters()], [], []
    for again in (False, True):
        monkeypatch.setattr(recompute, "recomputes", lambda x, again=again: again)
        with SavedForBackward(inputs) as saved:
            out = block(x, condition)
        kept.append(saved.nbytes())
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert kept[1] < kept[0]


def test_the_cheap_function_is_called_again_and_its_result_is_not_kept(monkeypatch):
    monkeypatch.setattr(recompute, "recomputes", lambda x: True)
    calls = []

    def cheap(x):
        calls.append(torch.is_grad_enabled())
        return ops.modulated_norm(x, weight, weight)

    weight, x, layer = torch.ones(6), torch.randn(2, 5, 6, requires_grad=True), nn.Linear(6, 3)
    out = applied(layer, cheap, x)
    assert calls == [True]
    out.sum().backward()
    assert calls == [True, False]
    expected = ops.modulated_norm_ref(x.detach(), weight, weight).sum((0, 1))
    torch.testing.assert_close(layer.weight.grad, expected.expand(3, 6))


def test_on_cpus_nothing_is_computed_again():
    assert not recompute.recomputes(torch.ones(1))


def test_what_is_small_is_kept(monkeypatch):
    monkeypatch.setattr("torch.is_autocast_enabled", lambda device: True)
    for rows, again in ((1 << 19, False), ((1 << 19) + 1, True)):
        x = torch.empty(rows, 32, dtype=torch.bfloat16, device="meta")
        with AsOnCuda():
            assert recompute.recomputes(x) is again

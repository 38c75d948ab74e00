"""Launches, FLOP, bytes moved and bytes saved for backward, against counts by hand; CUDA's ways on the meta device."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from infdiff.benchmark.as_on_cuda import CUDA, AsOnCuda, MetaGenerator
from infdiff.benchmark.launches import PartCounter, SavedForBackward

BATCH, IN, OUT = 5, 3, 4


def test_operators_of_a_small_network_are_those_counted_by_hand():
    layer, x = nn.Linear(IN, OUT, device="meta"), torch.empty(BATCH, IN, device="meta")
    counter = PartCounter("rest")
    with counter, counter.within(layer, "layer"):
        loss = F.relu(layer(x)).sum()
        counter.part = "backward"
        loss.backward()
    assert counter.operators["layer"] == {"aten.addmm.default": 1}  # the transposed weight is a view
    assert counter.operators["rest"] == {"aten.relu.default": 1, "aten.sum.default": 1}
    # The loss's own gradient; of the ReLU; of the weight; of the bias. None of the input.
    assert counter.operators["backward"] == {
        "aten.ones_like.default": 1,
        "aten.threshold_backward.default": 1,
        "aten.mm.default": 1,
        "aten.sum.dim_IntList": 1,
    }
    assert counter.flop == {"layer": 2 * BATCH * IN * OUT, "rest": 0, "backward": 2 * BATCH * IN * OUT}


def test_bytes_moved_are_those_counted_by_hand():
    """What is read and what is written, 4 bytes each."""
    a, b = (torch.empty(6, OUT, device="meta") for _ in range(2))
    counter = PartCounter("none")
    with counter:
        for part, call, numbers in [
            ("new", lambda: a + b, 3 * 6 * OUT),
            ("view", lambda: a.view(-1), 0),
            ("changed", lambda: a.mul_(b), 3 * 6 * OUT),
            ("filled", lambda: a.copy_(b), 2 * 6 * OUT),
            ("repeated", lambda: a + b[:1].expand(6, OUT), 2 * 6 * OUT + OUT),
            ("list", lambda: torch._foreach_lerp_([a, a], [b, b], 0.5), 2 * 3 * 6 * OUT),
            ("empty", lambda: torch.empty(0, OUT, device="meta").neg(), 0),
        ]:
            counter.part = part
            call()
            assert counter.moved[part] == 4 * numbers, part


def test_what_is_saved_is_that_counted_by_hand():
    layer, x = nn.Linear(IN, OUT, device="meta"), torch.empty(BATCH, IN, device="meta")
    with SavedForBackward(layer.parameters()) as saved:
        hidden = F.relu(layer(x))  # saves x and its own output
        torch.cat([hidden.square(), hidden.exp()])  # saves the same output again, and that of exp
    assert saved.nbytes() == 4 * (BATCH * IN + 2 * BATCH * OUT)
    assert saved.nbytes([x]) == 4 * BATCH * IN


def test_autocast_takes_cudas_types():
    layer, x = nn.Linear(IN, OUT, device="meta"), torch.empty(BATCH, IN, device="meta")
    with AsOnCuda() as device, device.autocast():
        assert x.device == layer.weight.device == CUDA
        assert torch.randn(2, device=CUDA, generator=MetaGenerator()).device == CUDA
        assert layer(x).dtype == torch.bfloat16
        assert F.layer_norm(layer(x), (OUT,)).dtype == torch.float32
        assert set(device.copies) == {id(layer.weight), id(layer.bias)}
        layer(x)
        assert len(device.copies) == 2
        with torch.autocast("cuda", enabled=False):
            assert layer(x).dtype == torch.float32
    assert x.device.type == "meta"
    assert not torch.is_autocast_enabled("cuda")


@pytest.mark.parametrize("training", [True, False])
def test_attention_and_dropout_are_one_operator_as_on_cuda(training):
    x = torch.empty(2, 4, 16, 64, dtype=torch.bfloat16, device="meta")
    counter = PartCounter("all")
    with AsOnCuda(), counter:
        F.dropout(F.scaled_dot_product_attention(x, x, x), 0.1, training)
    assert counter.launches("all") == 1 + training
    assert counter.flop["all"] == 2 * 2 * 2 * 4 * 16 * 16 * 64

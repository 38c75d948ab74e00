"""EMA weights follow the trained ones at once, and slowly later on."""

import math

import pytest
import torch
from torch import nn

from infdiff.training.ema import Ema


def filled(value):
    """Modules of one weight."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return {"net": net}


def weight_of_the_start(updates, decay):
    """What is left of the initial weights, 1, after updates towards 0."""
    ema = Ema(filled(1.0), decay)
    for n in range(updates):
        ema.update(filled(0.0), n)
    return ema.modules["net"].weight.item()


@pytest.mark.parametrize("updates", [1, 2, 5, 20])
def test_the_start_is_forgotten_within_the_first_updates(updates):
    """The product of its decays (1 + n) / (10 + n) is one over a binomial coefficient."""
    assert weight_of_the_start(updates, 0.9999) == pytest.approx(1 / math.comb(updates + 9, 9), rel=1e-4)


def test_after_the_first_updates_the_decay_is_the_one_asked_for():
    """(1 + n) / (10 + n) passes 0.5 at update 8."""
    assert weight_of_the_start(28, 0.5) == pytest.approx(weight_of_the_start(8, 0.5) * 0.5**20, rel=1e-4)


def test_weights_that_stand_still_are_their_own_average():
    ema = Ema(filled(3.0), 0.9)
    for n in range(5):
        ema.update(filled(3.0), n)
    assert ema.modules["net"].weight.item() == 3.0


def test_the_copies_are_not_trained_and_take_no_statistics_of_another_network():
    modules = {"net": nn.BatchNorm1d(2)}
    ema = Ema(modules, 0.9)
    modules["net"](torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    ema.update(modules, 0)
    assert torch.equal(ema.modules["net"].running_mean, torch.zeros(2))
    assert not any(p.requires_grad for p in ema.modules["net"].parameters())
    assert not ema.modules["net"].training

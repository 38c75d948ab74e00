"""What conditions do to a loss: left out always they are nothing, and any number of processes leaves out the same."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.labelled import Labelled
from infdiff.methods.method import build_modules, method_of
from infdiff.processes import Place
from infdiff.training.objectives import Given
from tests.conftest import TINY, TINY_GRID

KINDS = {"points": TINY, "grid": [*TINY_GRID, "data.augment=0.5"]}
LABELS = ["model.condition.classes=3"]
KNOWN = ["data.channels=2", "data.condition_channels=1"]


def objective_and_modules(kind, *settings):
    config = load_config("demo", [*KINDS[kind], "model.grid.dropout=0", *settings])
    modules, random = build_modules(config), torch.Generator().manual_seed(0)
    for module in modules.values():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=random)
    return method_of(config).objective(), modules


def loss(objective, modules, batch):
    return objective(modules, batch, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_always_left_out_are_nothing(kind, generator):
    images, labels = torch.rand(4, 3, 16, 16, generator=generator), torch.eye(3)[[0, 1, 2, 0]]
    objective, modules = objective_and_modules(kind, *LABELS, "train.condition_drop=1")
    plain = loss(objective, modules, images)
    assert torch.equal(loss(objective, modules, Labelled(images, labels)), plain)
    assert torch.equal(loss(objective, modules, Labelled(images, labels.roll(1, 0))), plain)
    objective, modules = objective_and_modules(kind, *LABELS, "train.condition_drop=0")
    assert not torch.equal(loss(objective, modules, Labelled(images, labels)), plain)
    assert torch.equal(loss(objective, modules, images), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_known_channels_are_seen_unless_they_are_left_out_and_never_a_target(kind, generator):
    images = torch.rand(4, 3, 16, 16, generator=generator)
    other = images.clone()
    other[:, 2] += 1
    objective, modules = objective_and_modules(kind, *KNOWN, "train.condition_drop=1")
    assert torch.equal(loss(objective, modules, images), loss(objective, modules, other))
    objective, modules = objective_and_modules(kind, *KNOWN, "train.condition_drop=0")
    assert not torch.equal(loss(objective, modules, images), loss(objective, modules, other))
    # A network whose output is zero: the target alone is left.
    for parameter in modules["denoiser"].parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(loss(objective, modules, images), loss(objective, modules, other))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_holes_of_known_channels_does_not_matter(kind, generator):
    images = torch.rand(4, 3, 16, 16, generator=generator)
    holed = images.clone()
    holed[:, 2, :4] = torch.nan
    objective, modules = objective_and_modules(kind, *KNOWN)
    value = loss(objective, modules, holed)
    assert value.isfinite()
    assert not torch.equal(value, loss(objective, modules, images))


def test_the_encoder_sees_generated_channels_alone(generator):
    objective, modules = objective_and_modules("points", *KNOWN)
    assert modules["encoder"].lift.linear.in_features == 2 + 12
    assert modules["denoiser"].lift.linear.in_features == 2 + 2 + 12
    assert modules["denoiser"].out_channels == 2
    assert loss(objective, modules, torch.rand(4, 3, 16, 16, generator=generator)).isfinite()


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_leaves_out_the_same(count, monkeypatch):
    labels, known = torch.ones(8, 3), torch.ones(8, 1, 4, 4)
    whole = Given.drawn(labels, known, 0.4, 8, torch.Generator().manual_seed(3))
    parts = []
    for rank in range(count):
        monkeypatch.setattr("infdiff.processes.joined", lambda rank=rank: Place(rank, count, rank))
        rows = slice(rank * 8 // count, (rank + 1) * 8 // count)
        parts.append(Given.drawn(labels[rows], known[rows], 0.4, 8 // count, torch.Generator().manual_seed(3)))
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert torch.equal(torch.cat([part.known for part in parts]), whole.known)
    assert 0 < whole.labels.mean() < 1

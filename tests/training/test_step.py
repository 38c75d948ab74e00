"""A training step: recorded ones are the eager ones, and nothing in one waits for the host."""

import json
import math
from pathlib import Path

import pytest
import torch

from infdiff.config.files import changed, load_config
from infdiff.data.latents import Latents
from infdiff.errors import UserError
from infdiff.runs.data import build_data
from infdiff.runs.latent_training import build_latent_trainer
from infdiff.runs.training import build_trainer
from infdiff.training.step import not_finite
from tests.conftest import TINY, TINY_GRID, assert_one_line_error
from tests.recording import CPURecorder, NoWaiting, WaitError

CPU = torch.device("cpu")
# Losses of the first steps, made before steps could be recorded or compiled.
LOSSES = json.loads((Path(__file__).parent / "losses.json").read_text())
RUNS = {
    "points": [*TINY, "train.subsample={1: 1, 4: 1}", "train.bfloat16=false"],
    "points, muon": [
        *TINY,
        "train.optimiser=muon",
        "model.channels=16",
        "model.grid.channels=16",
        "train.weight_decay=0.1",
        "train.accumulate=2",
        "train.warmup=3",
        "train.bfloat16=false",
        "train.latent_noise=0.1",
        "train.points=halton",
    ],
    "grids": [*TINY_GRID, "data.resolutions={8: 1, 16: 1}", "data.augment=0.2", "train.bfloat16=false"],
    "latents": [*TINY, "latent.width=16", "latent.train.batch_size=8"],
}
# Others of which nothing may wait either.
MORE = {
    "stratified, sharp": [*TINY, "train.points=stratified", "model.sharp=true", "train.times=lognormal"],
    "points alone": [*TINY, "model.grid={kind: sparse}", "model.grid.channels=8", "model.grid.multipliers=[1,2]"],
    "dfu inside": [*TINY, "model.grid={kind: dfu, modes: 3}", "model.depthwise=false", "model.nonlinear_kernel=true"],
    "min_snr": [*TINY, "diffusion.weighting=min_snr", "model.separate_latent=true", "model.scale_grid=false"],
    "mollified edm": [*TINY_GRID, "edm.noise=mollified", "edm.mollifier_sigma=2.0"],
    "published": [
        "celebahq_64",
        "data.cache=ram",
        "model.grid.channels=8",
        "model.channels=8",
        "model.z_dim=8",
        "train.batch_size=2",
    ],
}


def trainer_of(name, folder, **settings):
    overrides = {**RUNS, **MORE}[name]
    base = "demo" if "=" in overrides[0] else overrides[0]
    config = load_config(base, [entry for entry in overrides if "=" in entry])
    if name == "latents":
        config = changed(config, {f"latent.train.{key}": value for key, value in settings.items()})
        z = torch.randn(40, config.latent_dim, generator=torch.Generator().manual_seed(0))
        return build_latent_trainer(config, Latents.of(z[:32], z[32:]), type("Folder", (), {"path": folder})(), CPU)
    config = changed(config, {f"train.{key}": value for key, value in settings.items()})
    return build_trainer(config, build_data(config, CPU), folder, CPU)


def train(trainer, steps):
    batches = trainer.batches(0)
    return torch.stack([trainer.train_step(batches).scalars for _ in range(steps)])


def weights(trainer):
    modules = {**trainer.modules, **{f"ema {name}": module for name, module in trainer.ema.modules.items()}}
    return {f"{key} {name}": t for key, module in modules.items() for name, t in module.state_dict().items()}


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_before(name, tmp_path):
    """To rounding: processors differ in how they sum, two with AVX-512 from different makers among them."""
    losses = train(trainer_of(name, tmp_path), 5)[:, 0].tolist()
    assert losses == pytest.approx(LOSSES[name], rel=1e-5)


@pytest.fixture
def recorders(monkeypatch):
    """Steps are recorded here, by a stand-in for CUDA's graphs."""
    made = []
    monkeypatch.setattr("infdiff.training.settings.why_no_graphs", lambda device: None)
    monkeypatch.setattr(
        "infdiff.training.step.Recorder", lambda *arguments: made.append(CPURecorder(*arguments)) or made[-1]
    )
    return made


@pytest.mark.parametrize("name", RUNS)
def test_recorded_steps_are_the_eager_ones(name, tmp_path, recorders):
    eager, recorded = (trainer_of(name, tmp_path, graph=graph) for graph in (False, True))
    (recorder,) = recorders
    assert torch.equal(train(eager, 14), train(recorded, 14))
    assert recorder.recordings >= (2 if "grids" in name or name == "points" else 1)
    assert recorder.replays >= 8
    old, new = weights(eager), weights(recorded)
    assert all(torch.equal(value, new[key]) for key, value in old.items())


def test_frozen_parameters_have_steps_of_their_own(tmp_path, recorders):
    def run(graph):
        trainer = trainer_of("points", tmp_path, graph=graph)
        some = trainer.parameters[::2]
        trainer.frozen = lambda batch: some if trainer.step % 3 == 0 else ()
        return train(trainer, 20), weights(trainer)

    (old, before), (new, after) = run(False), run(True)
    assert recorders[0].recordings >= 3
    assert torch.equal(old, new)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_bad_step_is_also_skipped_when_replayed(tmp_path, recorders):
    trainer = trainer_of("latents", tmp_path, graph=True)
    batches = trainer.batches(0)
    for _ in range(4):
        trainer.train_step(batches)
    start = weights(trainer)
    kept = {name: tensor.clone() for name, tensor in start.items() if not name.startswith("ema")}
    scalars = [trainer.train_step(iter([next(batches) * float("inf")])).scalars.tolist() for _ in range(2)]
    assert [values[2:4] for values in scalars] == [[1, 1], [1, 2]]
    assert all(torch.equal(start[name], value) for name, value in kept.items())
    assert trainer.train_step(batches).scalars[2:4].tolist() == [0, 0]
    assert not any(torch.equal(start[name], value) for name, value in kept.items() if "weight" in name)


class Failing(CPURecorder):
    """Computes nothing, as CUDA while it records, but draws."""

    def __init__(self, device, generators):
        super().__init__(device)
        self.generators = generators

    def record(self, call):
        torch.rand(3)
        torch.rand(3, generator=self.generators[0])
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_recording_that_fails_leaves_training_as_it_is(tmp_path, recorders, monkeypatch):
    monkeypatch.setattr("infdiff.training.step.Recorder", Failing)
    eager, failing = (trainer_of("points", tmp_path, graph=graph) for graph in (False, "auto"))
    assert torch.equal(train(eager, 8), train(failing, 8))
    (note,) = failing.change.notes
    assert note == (
        "train.graph: steps go on one kernel at a time; recording failed: operation not permitted when stream is "
        "capturing"
    )
    with pytest.raises(UserError, match=r"train\.graph: a step cannot be recorded: operation"):
        train(trainer_of("points", tmp_path, graph=True), 8)


@pytest.mark.parametrize("name", [*RUNS, *MORE])
def test_nothing_in_a_step_waits_for_the_host(name, tmp_path, monkeypatch):
    monkeypatch.setattr("infdiff.ops.rows._at_once", lambda *_: False)  # as on a device that is no CPU
    trainer = trainer_of(name, tmp_path)
    batches = trainer.batches(0)
    trainer.train_step(batches)  # caches are filled, and tables moved to the device
    for step in range(1, 5):
        given = [next(batches) for _ in range(trainer.settings.accumulate)]
        with NoWaiting():
            trainer.change(step, given, ())
            trainer.ema.update(trainer.modules, step)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x[0]),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: torch.where(x > 0),
        lambda x: x.new_tensor([1, 2]),
        lambda x: torch.equal(x, x),
        lambda x: x.relu_().numpy(),
    ],
)
def test_what_waits_is_noticed(wait):
    with pytest.raises(WaitError, match="waits for the host"), NoWaiting():
        wait(torch.randn(4))
    with NoWaiting():
        torch.randn(4).relu().sum()


def test_graphs_that_cannot_be_are_one_line(command, tmp_path):
    result = command("train", "--device", "cpu", "--out", "runs/x", *TINY, "train.graph=true")
    assert_one_line_error(result, "train.graph", "CUDA graphs want a CUDA device", "auto")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_found_in_either_place(bad):
    numbers = [torch.tensor(x) for x in (0.0, 1.5, -3e38, 1e-40)]
    for number in numbers:
        assert all(float(not_finite(number, other)) == 0.0 for other in numbers)
        assert float(not_finite(number, torch.tensor(bad))) == float(not_finite(torch.tensor(bad), number)) == 1.0

"""Fine-tuning: what it starts from, what it is shown, and exactly which weights move on which batches."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.config.files import config_differences, load_config
from infdiff.data.upsampled import Upsampled
from infdiff.errors import UserError
from infdiff.methods.checks import check_config
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import training_weights
from infdiff.runs.data import TrainingData, build_data
from infdiff.runs.trained import TrainedModel
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER
from infdiff.training import checkpoint
from tests.conftest import TINY_EDM, TINY_GRID, assert_one_line_error, command_in

CPU = torch.device("cpu")
RUN = [*TINY_GRID, "data.resolutions={8: 3, 16: 1}", "train.weight_decay=0.1", "train.decay_from=1"]
TUNE = [*RUN, "finetune.size=24"]
MANY = [*TUNE, "finetune.weight=0.6"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    result = command_in(folder)("train", "--out", "r", "--steps", 6, *RUN)
    assert result.returncode == 0, result.stderr
    return folder / "r"


def trainer(start, folder, *overrides):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*MANY, f"finetune.run={start}", *overrides])
    check_config(config)
    return build_trainer(config, build_data(config, CPU), folder, CPU)


def test_training_starts_from_the_averaged_weights(start, tmp_path):
    expected = checkpoint.load_tensors(start / "checkpoints", 6, "ema_denoiser")
    tuned = trainer(start, tmp_path)
    for modules in (tuned.modules, tuned.ema.modules):
        state = modules["denoiser"].state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_spatial_weights_but_the_bottoms_stay_bit_for_bit_on_enlarged_batches_only(start, tmp_path):
    """Momentum is there from the first step on, and weight decay: nothing of either may reach a frozen weight."""
    tuned = trainer(start, tmp_path)
    batches = tuned.batches(0)
    seen = {"24": 0, "16": 0, "8": 0}
    for step in range(24):
        before = {name: p.detach().clone() for name, p in zip(tuned.names, tuned.parameters, strict=True)}
        tuned.step = step
        label = tuned.train_step(batches).label
        seen[label] += 1
        still = {
            name.removeprefix("denoiser.network.")
            for name, p in zip(tuned.names, tuned.parameters, strict=True)
            if torch.equal(p, before[name])
        }
        if label != "24":
            assert still == set()
            continue
        # Two levels: level 1 is the bottom. A block has two dual convolutions, taps and bias each.
        top_blocks = ("down.levels.0.0", "levels.1.0")
        taps = [f"{block}.{conv}.spatial" for block in top_blocks for conv in ("conv_in", "conv_out")]
        taps += ["down.conv_in", "conv_out"]
        assert still == {f"{conv}.{part}" for conv in taps for part in ("weight", "bias")}
    assert min(seen.values()) > 0


def test_without_freezing_every_weight_moves_on_every_batch(start, tmp_path):
    tuned = trainer(start, tmp_path, "finetune.freeze=none")
    batches = tuned.batches(0)
    seen = set()
    for step in range(8):
        before = [p.detach().clone() for p in tuned.parameters]
        tuned.step = step
        seen.add(tuned.train_step(batches).label)
        assert not any(torch.equal(p, b) for p, b in zip(tuned.parameters, before, strict=True))
    assert "24" in seen


@pytest.mark.parametrize("freeze", ["none", "spatial"])
def test_all_of_the_weight_may_be_on_the_upsampled_images(command, start, tmp_path, freeze):
    """The rows of Table 3 without a mixture: every batch is upsampled, and it resumes exactly."""
    settings = [*TUNE, "finetune.weight=1", f"finetune.freeze={freeze}"]
    tuned = trainer(start, tmp_path, *settings)
    assert {tuple(batch.shape[2:]) for batch in itertools.islice(tuned.batches(0), 40)} == {(24, 24)}
    for folder, steps in (("parts", 2), ("parts", 4), ("whole", 4)):
        result = command("train", "--finetune", start, "--out", folder, "--steps", steps, *settings)
        assert result.returncode == 0, result.stderr
    first = checkpoint.load_tensors(start / "checkpoints", 6, "ema_denoiser")
    a, b = (checkpoint.load_tensors(tmp_path / f / "checkpoints", 4, "denoiser") for f in ("parts", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    name = "network.down.levels.0.0.conv_in.spatial.weight"
    assert torch.equal(a[name], first[name]) == (freeze == "spatial")


def test_enlarged_images_are_those_of_the_largest_resolution(start, tmp_path):
    config = load_config(CONFIG_FOLDER / "demo.yaml", MANY)
    data = build_data(config, CPU)
    given = TrainingData(config, data, CPU)
    assert [part.weight for part in given.parts] == pytest.approx([0.2, 0.2, 0.6])
    enlarged = given.parts[-1].train
    assert isinstance(enlarged, Upsampled)
    for place in (0, 5):
        small = Image.fromarray(data.train.at((16, 16))[place].permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(small.resize((24, 24), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        assert (enlarged[place].int() - expected.int()).abs().max() <= 1
    assert torch.equal(enlarged.take(torch.tensor([5, 0])), torch.stack([enlarged[5], enlarged[0]]))
    batches = [tuple(batch.shape[2:]) for batch in itertools.islice(given.batches(0), 200)]
    assert batches.count((24, 24)) == pytest.approx(120, abs=35)
    assert {tuple(batch.shape[2:]) for batch in given.validation()} == {(8, 8), (16, 16), (24, 24)}


def test_from_the_command_line_and_resumed_exactly(command, start, tmp_path):
    for steps in (2, 5):
        result = command("train", "--finetune", start, "--out", "parts", "--steps", steps, *MANY)
        assert result.returncode == 0, result.stderr
    result = command("train", "--finetune", start, "--out", "whole", "--steps", 5, *MANY)
    assert result.returncode == 0, result.stderr
    for group in ("denoiser", "ema_denoiser", "optimizer"):
        a, b = (checkpoint.load_tensors(tmp_path / f / "checkpoints", 5, group) for f in ("parts", "whole"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), group
    records = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["validation_losses"].keys() == {"8", "16", "24"}
    run = TrainedModel.load(tmp_path / "whole", CPU)
    options = SamplingOptions.of(run.method, (24, 24), sampler="heun", steps=2)
    assert run.sample([0], (24, 24), seed=0, options=options).shape == (1, 3, 24, 24)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--finetune", "nowhere", *TUNE], ["--finetune nowhere", "not a run"]),
        (["--finetune", "START", *RUN], ["finetune.size"]),
        (["--finetune", "START", *RUN, "finetune.size=16"], ["finetune.size: 16", "want more", "16"]),
        (["--finetune", "START", *TUNE, "model.grid.modes=4"], ["another architecture", "model.grid.modes: 3 -> 4"]),
        (["--finetune", "POINTS", *TUNE], ["method: infinity_diff -> edm"]),
        (["--finetune", "START", *TUNE, "edm.data_std=0.7"], ["edm.data_std: 0.5 -> 0.7"]),
        (["--finetune", "START", *TUNE, "finetune.weight=0"], ["finetune.weight: 0"]),
        (["--finetune", "START", *TINY_EDM, "finetune.size=24"], ["finetune.size", "dfu"]),
        ([*TUNE], ["--finetune RUN"]),
    ],
)
def test_mistakes_are_named_and_nothing_is_left(command, start, tmp_path, arguments, parts):
    points = Path(__file__).parent.parent / "earlier_runs" / "points"
    arguments = [{"START": start, "POINTS": points}.get(argument, argument) for argument in arguments]
    assert_one_line_error(command("train", "--out", "o", "--steps", 1, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_the_published_finetuning_fits_the_published_run():
    run, tune = (load_config(CONFIG_FOLDER / f"{name}.yaml") for name in ("dfu_ffhq_96", "dfu_finetune_160"))
    assert config_differences(run, tune, ignore=("name", "train", "finetune", "data.batch_sizes")) == []
    assert training_weights(tune) == pytest.approx(
        {(n, n): weight for n, weight in zip((32, 48, 64, 80, 96, 160), (0.16,) * 5 + (0.2,), strict=True)}
    )
    assert (tune.train.learning_rate, tune.train.steps) == (1e-4, 10_000)


def test_points_are_not_finetuned():
    with pytest.raises(UserError, match=r"finetune\.size: goes with method: edm"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", ["finetune.size=128"]))

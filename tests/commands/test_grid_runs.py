"""Grid networks alone, as users run them: DFU trained, resumed, sampled at other sizes, loaded as a library."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import infdiff
from infdiff.coordinates import cell_centres
from infdiff.errors import UserError
from infdiff.images.pixels import to_uint8
from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.trained import TrainedModel
from infdiff.training import checkpoint
from tests.conftest import TINY, TINY_EDM, TINY_GRID, assert_one_line_error, command_in, pixels

SETTINGS = [*TINY_GRID, "train.decay_from=1", "data.resolutions={8: 2, 16: 3}", "data.batch_sizes={8: 7}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    result = command_in(folder)("train", "--out", "r", "--steps", 4, *SETTINGS)
    assert result.returncode == 0, result.stderr
    return folder / "r"


def test_training_leaves_all_that_is_promised(run):
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "log.jsonl", "loss.png", "samples", "checkpoints"}
    assert {p.name for p in (run / "samples").glob("*.png")} == {"samples-00000004.png"}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "validation_loss" in r] == [3, 4]
    assert set().union(*(r["losses"] for r in records if "losses" in r)) == {"8", "16"}
    assert all(r["validation_losses"].keys() == {"8", "16"} for r in records if "validation_loss" in r)


def test_samples_of_other_sizes(command, run, tmp_path):
    result = command("sample", "--run", run, "--res", "12x20", "--n", 3, "--batch", 2, "--steps", 4, "--out", "a")
    assert result.returncode == 0, result.stderr
    assert pixels(tmp_path / "a" / "00002.png").shape == (12, 20, 3)
    record = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert (record["sampler"], record["steps"], record["size"]) == ("heun", 4, [12, 20])
    result = command("sample", "--run", run, "--res", "12x20", "--steps", 4, "--sampler", "heun", "--out", "b")
    assert result.returncode == 0, result.stderr
    first, again = (pixels(tmp_path / folder / "00000.png") for folder in "ab")
    assert abs(first - again).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--eta", "0.5"], ["--eta 0.5", "edm", "churn"]),
        (["--truncation", "0.5"], ["--truncation"]),
        (["--deblur", "wiener"], ["--deblur", "white"]),
        (["--sampler", "ddim"], ["--sampler ddim", "heun"]),
        (["--churn", "-1"], ["--churn"]),
        (["--steps", "0"], ["--steps"]),
        (["--upscale", "bilinear", "--res", "16x24"], ["--upscale bilinear", "16x24", "16"]),
    ],
)
def test_options_of_another_kind_are_refused(command, run, tmp_path, arguments, parts):
    assert_one_line_error(command("sample", "--run", run, *arguments, "--out", "o"), *parts)
    assert list(tmp_path.iterdir()) == []


def test_resuming_gives_bit_for_bit_the_same_weights(command, run, tmp_path):
    for steps in (3, 4):
        result = command("train", "--out", "parts", "--steps", steps, *SETTINGS)
        assert result.returncode == 0, result.stderr
    for group in ("denoiser", "ema_denoiser", "optimizer"):
        whole, parts = (checkpoint.load_tensors(f / "checkpoints", 4, group) for f in (run, tmp_path / "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_points_are_trained_on_several_resolutions(command, tmp_path):
    settings = [*TINY, "data.resolutions={8: 1, 16: 1, 12x24: 1}", "train.log_every=1"]
    result = command("train", "--out", "r", "--steps", 4, *settings)
    assert result.returncode == 0, result.stderr
    assert "16, 64, 72 points of them at 8, 16, 12x24" in result.stdout
    records = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    seen = [size for r in records if "losses" in r for size in r["losses"]]
    assert len(seen) == 4
    assert len(set(seen)) > 1
    assert records[-1]["validation_losses"].keys() == {"8", "16", "12x24"}


def test_dfu_inside_a_network_on_points(command, tmp_path):
    settings = [*TINY, "model.grid.kind=dfu", "model.grid.modes=3", "model.scale_grid=true"]
    result = command("train", "--out", "r", "--steps", 2, *settings, "data.resolutions={16: 1, 32: 1}")
    assert result.returncode == 0, result.stderr
    model = infdiff.load(tmp_path / "r", device="cpu")
    images = model.sample(1, "20x48", output="tensor")
    assert images.shape == (1, 3, 20, 48)
    assert model.reconstruct(images, output="tensor").shape == images.shape


def test_resolutions_larger_than_the_stored_images_are_refused(command, tmp_path):
    settings = [*TINY, "data.resolutions={16: 1, 160: 1}", "train.steps=1"]
    assert_one_line_error(command("train", "--out", "r", *settings), "resolution 160", "faces_128.lmdb")
    assert list(tmp_path.iterdir()) == []


def test_modes_that_no_grid_holds_are_one_line_of_warning(command):
    result = command("train", "--out", "r", "--steps", 1, *TINY_GRID, "model.grid.modes=20")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "warning: model.grid.modes: 20: grids of 16 hold 8, which are used\n"


def test_as_a_library(run, tmp_path):
    model = infdiff.load(run, device="cpu")
    images = model.sample(2, "12x20", seed=5, output="tensor", steps=3)
    assert images.shape == (2, 3, 12, 20)
    again = infdiff.load(model.export(tmp_path / "exported"), device="cpu")
    assert torch.equal(again.sample(2, "12x20", seed=5, output="tensor", steps=3), images)
    picture = np.zeros((16, 16, 3), np.uint8)
    for call in (
        lambda: model.encode(picture),
        lambda: model.decode(torch.zeros(1, 8)),
        lambda: model.reconstruct(picture),
        lambda: model.super_resolve(picture, 32),
    ):
        with pytest.raises(UserError, match="without an encoder"):
            call()
    with pytest.raises(UserError, match="wants one of method infinity_diff"):
        model.inpaint(picture, np.ones((16, 16), bool))
    with pytest.raises(ValueError, match="wrong: 1: unknown option"):
        model.sample(1, wrong=1)


class Ramp:
    """Stands in for the method: images that rise with row and column, of the size asked for."""

    def generate(self, denoiser, *, size, indices, **options):
        assert size == (16, 16)
        return ramp(size).expand(len(indices), 3, -1, -1)


def ramp(size):
    return (0.9 * cell_centres(size[0])[:, None] - 0.7 * cell_centres(size[1])).float()


@pytest.mark.parametrize("size", [(40, 40), (16, 16)])
def test_upscaling_samples_at_the_training_size_and_resizes(run, size):
    stub = dataclasses.replace(TrainedModel.load(run, torch.device("cpu")), method=Ramp())
    out = stub.sample([0, 1], size, seed=0, options=SamplingOptions("heun", steps=2, upscale="bilinear"))
    expected = to_uint8(ramp(size)).expand(2, 3, -1, -1)
    torch.testing.assert_close(out[..., 2:-2, 2:-2].int(), expected[..., 2:-2, 2:-2].int(), rtol=0, atol=1)


def test_a_mollified_run_can_be_deblurred(command, tmp_path):
    settings = [*TINY_EDM, "edm.noise=mollified"]
    result = command("train", "--out", "r", "--steps", 1, *settings)
    assert result.returncode == 0, result.stderr
    model = infdiff.load(tmp_path / "r", device="cpu")
    plain, sharp = (model.sample(1, 24, output="tensor", deblur=deblur) for deblur in ("none", "wiener"))
    assert (plain.int() - sharp.int()).abs().max() > 0

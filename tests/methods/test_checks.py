"""Settings that cannot work together are named."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.methods.checks import check_config, config_warnings, kernels_note
from infdiff.ops.gpu import launch
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY_EDM, TINY_GRID


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["data.resolutions={32: 1, 48: -0.5}"], ["data.resolutions.48: -0.5"]),
        (["data.resolutions={32: .nan}"], ["data.resolutions.32: nan"]),
        (["data.resolutions={32: 0, 48: 0}"], ["data.resolutions: all weights are 0"]),
        (["data.resolutions={abc: 1}"], ["data.resolutions: 'abc' is not a size"]),
        (["data.resolutions={32: 1, 32x32: 1}"], ["data.resolutions: 32 is there twice"]),
        (["data.resolutions={32: 1}", "data.batch_sizes={48: 4}"], ["data.batch_sizes.48: not one of"]),
        (["data.resolutions={32: 1}", "data.batch_sizes={32: 0}"], ["data.batch_sizes.32: 0: want at least 1"]),
        (["data.resolutions={2: 1}", "train.subsample=20"], ["train.subsample: 20", "at most 4"]),
    ],
)
def test_resolutions_that_cannot_work_are_named(overrides, parts):
    with pytest.raises(UserError) as error:
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", overrides))
    for part in parts:
        assert part in str(error.value)


def test_a_grid_network_alone_has_its_largest_resolution_as_base():
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_EDM, "data.resolutions={8: 1, 16: 1}"]))
    with pytest.raises(UserError, match=r"data\.size: 16 is not the largest.*set it to 24"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, "data.resolutions={8: 1, 24: 1}"]))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.subsample=0", "train.subsample"),
        ("train.subsample=1000000", "train.subsample"),
        ("train.subsample=nan", "train.subsample"),
        ("data.size=0", "data.size"),
        ("data.size=abc", "data.size"),
        ("model.kernel_size=4", "model.kernel_size"),
        ("model.grid_size=128", "model.grid_size"),
        ("model.backend=magic", "model.backend"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.steps=-1", "train.steps"),
        ("diffusion.schedule=cubic", "diffusion.schedule"),
        ("sample.steps=2000", "sample.steps"),
        ("sample.eta=0.5", r"sample.eta: 0.5: goes with sample.sampler: ddim \(here it is ddpm\)"),
        (
            "sample.variance=beta;sample.sampler=ddim",
            r"sample.variance: beta: goes with sample.sampler: ddpm \(here it is ddim\)",
        ),
        ("train.subsample={1: 1, 10000: 1}", "train.subsample: 10000 leaves no point of 4096 pixels"),
        ("diffusion.sigma=0;model.sharp=true", "model.sharp"),
        ("train.times=lognormal;train.times_log_mean=40", "train.times_log_mean: 40 .* only 0%"),
        ("sample.deblur=network", r"sample.deblur: network: .*model\.sharp"),
    ],
)
def test_settings_that_cannot_work_are_named(override, key):
    with pytest.raises(UserError, match=key):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", override.split(";")))


def test_evaluations_that_take_much_time_are_named():
    """128 samples in 50 evaluations of the network are 6400 images; 12 images a step are 36 without gradients."""
    settings = ["train.batch_size=6", "train.accumulate=2", "sample.steps=50", "train.eval_images=128"]

    def warnings(*others):
        return config_warnings(load_config(CONFIG_FOLDER / "demo.yaml", [*settings, *others]))

    assert warnings("train.eval_every=1778") == warnings("train.eval_every=0") == []
    (warning,) = warnings("train.eval_every=1777")
    assert "128 samples take about as long as 178 steps" in warning
    assert "give it 1778 or more" in warning
    assert warnings("train.eval_every=1777", "train.eval_images=64") == []


def test_a_cuda_device_without_kernels_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(launch, "why_closed", lambda: "the device is of compute capability 7.5, older than 8.0")
    assert kernels_note(torch.device("cuda")) == (
        "CUDA kernels do not run: the device is of compute capability 7.5, older than 8.0; plain PyTorch takes their "
        "place, more slowly"
    )
    assert kernels_note(torch.device("cpu")) is None
    monkeypatch.setattr(launch, "why_closed", lambda: None)
    assert kernels_note(torch.device("cuda")) is None

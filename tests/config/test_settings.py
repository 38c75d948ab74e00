"""Every setting has limits, and every shipped configuration keeps them."""

import math
import re
from typing import get_origin

import pytest
import yaml
from pydantic import ValidationError

from infdiff.commands import train
from infdiff.config.files import changed, flatten, load_config
from infdiff.config.keys import KEYS, is_known, kinds_of
from infdiff.config.settings import DataSettings, DFUSettings, EDMConfig, InfinityDiffConfig, UNetSettings
from infdiff.errors import UserError
from infdiff.methods.checks import check_config
from infdiff.schema import Section
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY_EDM, TINY_GRID

CONFIGS = sorted(CONFIG_FOLDER.glob("*.yaml"))
DEMO = CONFIG_FOLDER / "demo.yaml"
# One configuration of every kind.
KINDS = {
    "infinity_diff, unet": [],
    "infinity_diff, dfu": ["model.grid.kind=dfu"],
    "edm, unet": TINY_EDM,
    "edm, dfu": TINY_GRID,
}
# A mapping or a number.
OR_A_NUMBER = {"train.subsample"}
# Numbers that may be negative.
SIGNED = {"edm.log_mean", "train.times_log_mean"}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def config(request):
    return load_config(DEMO, request.param)


def kinds(config):
    return kinds_of(config.model_dump())


def refusal(config, key, value):
    with pytest.raises(UserError) as error:
        changed(config, {key: value})
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_kind_of_setting_is_in_one_of_these_configurations():
    assert {key for overrides in KINDS.values() for key in flatten(load_config(DEMO, overrides))} == set(KEYS)


def test_values_of_another_type_are_refused_everywhere(config):
    for key, value in flatten(config).items():
        wrong = [None, object(), [["a"]], {"a": "b"}, "" if not isinstance(value, str) else 5.5]
        if key in ("method", "model.grid.kind"):
            wrong = [None, 3, "cloud"]
        if isinstance(value, bool):
            wrong += [0, 1, "true"]
        elif isinstance(value, int | float):
            wrong += [True, "8.0", [1]]
        # A size may be a number or a text.
        if type(value) in (int, float) and KEYS[key][0].field.annotation in (int, float):
            wrong += ["8", *([1.0, 1.5] if type(value) is int else [])]
        if isinstance(value, tuple):
            wrong += [3, ["1"], [1.5], [True], [-1], [math.nan]]
        if isinstance(value, dict):
            wrong += [
                *([] if key in OR_A_NUMBER else [3]),
                [32],
                {"32": "a"},
                {"32": True},
                {"32": -1},
                {"32": math.nan},
                {"32": math.inf},
                {"ab": 1},
            ]
        for bad in wrong:
            assert key in refusal(config, key, bad), (key, bad)


def test_nan_and_infinity_and_numbers_below_zero_are_refused_everywhere(config):
    for key, value in flatten(config).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            for bad in (math.nan, math.inf, -math.inf, *([] if key in SIGNED else [-1])):
                assert refusal(config, key, bad).startswith((f"{key}: ", f"wrong type for key {key!r}")), (key, bad)


def test_whole_numbers_have_a_largest_one(config):
    for key, value in flatten(config).items():
        if type(value) is int and KEYS[key][0].field.annotation is int:
            assert refusal(config, key, 2**63).startswith(f"{key}: ")


def test_a_text_is_one_of_those_that_are_known_or_a_path(config):
    free = {"data.path", "data.validation_path", "finetune.run", "name"}
    for key, value in flatten(config).items():
        if isinstance(value, str) and key not in free:
            assert refusal(config, key, "nonsense").startswith(f"{key}: 'nonsense'"), key


def test_a_key_of_another_kind_names_both(config):
    own = flatten(config)
    foreign = set(KEYS) - set(own)
    assert foreign
    for key in foreign:
        line = refusal(config, key, KEYS[key][0].field.get_default(call_default_factory=True))
        assert line.startswith(f"{key}: goes with "), line
        assert "(here it is " in line
    assert all(is_known(key, kinds(config)) for key in own)


REFUSALS = [
    (["edm.rho=-1"], "edm.rho: goes with method: edm (here it is infinity_diff)"),
    (["edm={rho: 7}"], "edm.rho: goes with method: edm (here it is infinity_diff)"),
    (
        ["model.grid.kind=unet", "model.grid.modes=4"],
        "model.grid.modes: goes with model.grid.kind: dfu (here it is unet)",
    ),
    (
        [*TINY_GRID, "diffusion.target=nonsense"],
        "diffusion.target: goes with method: infinity_diff (here it is edm)",
    ),
    ([*TINY_GRID, "model.backend=magic"], "model.backend: goes with method: infinity_diff (here it is edm)"),
    ([*TINY_GRID, "model.kernel_size=4"], "model.kernel_size: goes with method: infinity_diff (here it is edm)"),
    ([*TINY_GRID, "train.subsample=4"], "train.subsample: goes with method: infinity_diff (here it is edm)"),
    (["method=grid"], "method: 'grid': choose one of infinity_diff, edm"),
    (["model.grid.kind=fno"], "model.grid.kind: 'fno': choose one of unet, dfu, sparse"),
    (["train.learning_rate=-1"], "train.learning_rate: -1: want more than 0, at most 10"),
    (["train.warmup=-5"], "train.warmup: -5: want at least 0"),
    (["train.ema_decay=7"], "train.ema_decay: 7: want 0 up to, not including, 1"),
    (["train.beta2=1"], "train.beta2: 1: want 0 up to, not including, 1"),
    (["train.decay_from=1.5"], "train.decay_from: 1.5: want 0 to 1"),
    (["train.clip=-1"], "train.clip: -1: want at least 0"),
    (["train.clip=.nan"], "train.clip: nan: want a finite number"),
    (["train.clip=nan"], "command line: wrong type for key 'train.clip': 'nan' should be a number"),
    (["train.weight_decay=-0.1"], "train.weight_decay: -0.1: want at least 0"),
    (["train.max_bad_steps=0"], "train.max_bad_steps: 0: want at least 1"),
    (["train.subsample=0"], "train.subsample: 0: want at least 1"),
    (["train.points=all"], "train.points: 'all': choose one of uniform, stratified, halton"),
    (["latent.train.max_bad_steps=0"], "latent.train.max_bad_steps: 0: want at least 1"),
    (["latent.train.ema_decay=7"], "latent.train.ema_decay: 7: want 0 up to, not including, 1"),
    (["latent.layers=1"], "latent.layers: 1: want 2 to 1000"),
    (["latent.sample_steps=2000"], "latent.sample_steps: 2000: want 1 to latent.diffusion_steps"),
    (["sample.eta=9"], "sample.eta: 9: want 0 to 1"),
    (["sample.sampler=heun"], "sample.sampler: 'heun': choose one of ddim, ddpm, dpm++"),
    (["sample.upscale=cubic"], "sample.upscale: 'cubic': choose one of none, bilinear, cosine, windows"),
    (["seed=99999999999999999999999"], "seed: 99999999999999999999999: want 0 to 9223372036854775807"),
    (["data.validation_fraction=1"], "data.validation_fraction: 1: want more than 0, less than 1"),
    (["data.resolutions={48: -0.5}"], "data.resolutions.48: -0.5: want at least 0"),
    (["data.batch_sizes={32: 0}"], "data.batch_sizes.32: 0: want at least 1"),
    (["data.size=abc"], "data.size: 'abc' is not a size: write 256 or 512x1024 (height x width)"),
    (["model.kernel_size=4"], "model.kernel_size: 4: want an odd number from 1 to 63"),
    (["model.grid.multipliers=[]"], "model.grid.multipliers: []: want at least one"),
    ([*TINY_GRID, "model.grid.kernel_size=2"], "model.grid.kernel_size: 2: want an odd number"),
    ([*TINY_GRID, "model.grid.attention_levels=[2]"], "model.grid.attention_levels: [2]: want levels 0 to 1"),
    ([*TINY_GRID, "edm.sigma_max=0.001"], "edm.sigma_max: 0.001: want more than edm.sigma_min, 0.002"),
    ([*TINY_GRID, "edm.mollifier_sigma=2"], "edm.mollifier_sigma: 2: goes with edm.noise: mollified, not white"),
    ([*TINY_GRID, "finetune.weight=0"], "finetune.weight: 0: want more than 0, at most 1"),
]


@pytest.mark.parametrize(
    ("overrides", "line"), REFUSALS, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_values_that_cannot_work_are_named_in_one_line(overrides, line):
    with pytest.raises(UserError) as error:
        load_config(DEMO, overrides)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("overrides", "line"), REFUSALS, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_a_refused_training_leaves_nothing_behind(overrides, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(line)):
        train.main(["--out", "run", "--device", "cpu", *overrides])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "overrides", [["sample.eta=0.5"], ["sample.steps=2000"], [*TINY_GRID, "data.resolutions={8: 0}"]]
)
def test_settings_that_do_not_go_together_leave_nothing_behind_either(overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        train.main(["--out", "run", "--device", "cpu", *overrides])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "a\\b", "..", "", "a\nb", "a" * 300])
def test_a_name_is_no_way_to_another_folder(name):
    with pytest.raises(UserError, match=r"name: .*want a plain name"):
        changed(InfinityDiffConfig(), {"name": name})


def test_settings_made_in_python_are_held_to_their_limits_too():
    assert InfinityDiffConfig().data.changed(size="48x64") == DataSettings(size="48x64")
    for make in (lambda: DFUSettings(kernel_size=4), lambda: UNetSettings().changed(blocks=0)):
        with pytest.raises(ValidationError):
            make()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_whole_and_holds_only_what_differs(path):
    config = load_config(path)
    check_config(config)
    assert config.name == path.stem
    defaults = EDMConfig() if config.method == "edm" else InfinityDiffConfig()
    if config.model.grid.kind == "dfu":
        defaults = changed(defaults, {"model.grid": DFUSettings()})

    def same(values, defaults, prefix=""):
        for key, value in values.items():
            default = getattr(defaults, key)
            if isinstance(value, dict) and isinstance(default, Section):
                yield from same(value, default, f"{prefix}{key}.")
            elif value == (list(default) if isinstance(default, tuple) else default):
                yield prefix + key

    chosen = {"method": config.method == "edm", "model.grid.kind": config.model.grid.kind == "dfu"}
    superfluous = [key for key in same(yaml.safe_load(path.read_text()), defaults) if not chosen.get(key)]
    assert superfluous == []


def test_every_mapping_is_of_sizes():
    assert {name for name, keys in KEYS.items() if get_origin(keys[0].field.annotation) is dict} == {
        "data.resolutions",
        "data.batch_sizes",
        "data.valid_pixels",
    }

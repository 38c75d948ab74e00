"""The configuration is strict, and what is saved reads back."""

from pathlib import Path

import pytest
import torch

from infdiff.config import Config, config_differences, load_config, save_config
from infdiff.errors import UserError
from infdiff.methods.checks import check_config, config_warnings
from infdiff.methods.method import build_modules
from infdiff.methods.sizes import point_count, resolutions
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY_GRID

CONFIGS = sorted(CONFIG_FOLDER.glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {chanels: 3}", ["model.chanels", "model.channels"]),
        ("modle: {channels: 3}", ["modle"]),
        ("train: {batch_size: many}", ["train.batch_size", "many"]),
        ("train: {batch_size: '8'}", ["train.batch_size", "'8'"]),
        ("train: {steps: 1.5}", ["train.steps"]),
        ("train: {compile: maybe}", ["train.compile"]),
        ("train: 5", ["train"]),
        ("model: {grid: {multipliers: 3}}", ["model.grid.multipliers"]),
        ("- 1", ["keys and values"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, parts):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, text))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["train.foo=1", "steps", "train.batch_size=x", "data.size=[1,2]"])
def test_mistakes_on_the_command_line_are_named(tmp_path, override):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, ""), [override])
    assert override.split("=")[0] in str(error.value)


def test_a_missing_file_lists_what_there_is(tmp_path):
    with pytest.raises(UserError, match="demo"):
        load_config(tmp_path / "no.yaml")


def test_what_is_saved_reads_back(tmp_path):
    config = load_config(write(tmp_path, "data: {size: 32x48}"), ["model.grid.multipliers=[1,2,3]", "train.clip=2e-1"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert config.train.clip == 0.2


def test_mappings_of_sizes_are_read_replaced_and_added_to(tmp_path):
    path = write(tmp_path, "data: {resolutions: {32: 1, 48x64: 5e-1}, batch_sizes: {32: 8}}")
    config = load_config(path)
    assert (config.data.resolutions, config.data.batch_sizes) == ({"32": 1.0, "48x64": 0.5}, {"32": 8})
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert load_config(path, ["data.resolutions={16: 1}"]).data.resolutions == {"16": 1.0}
    assert load_config(path, ["data.resolutions={}"]).data.resolutions == {}
    assert load_config(path, ["data.resolutions.64=2"]).data.resolutions == {"32": 1.0, "48x64": 0.5, "64": 2.0}
    differences = config_differences(config, load_config(path, ["data.resolutions.32=0"]))
    assert differences == ["data.resolutions: {'32': 1.0, '48x64': 0.5} -> {'32': 0.0, '48x64': 0.5}"]


@pytest.mark.parametrize("text", ["resolutions: [32]", "resolutions: {32: a}", "batch_sizes: {32: 1.5}"])
def test_mappings_of_another_kind_are_named(tmp_path, text):
    with pytest.raises(UserError, match=rf"wrong type for key 'data\.{text.split(':')[0]}.*sizes and"):
        load_config(write(tmp_path, f"data: {{{text}}}"))


def test_weights_of_resolutions_are_normalised():
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["data.resolutions={32: 1, 48x64: 3, 64: 0}"])
    assert resolutions(config) == {(32, 32): 0.25, (48, 64): 0.75}
    assert resolutions(load_config(CONFIG_FOLDER / "demo.yaml")) == {(64, 64): 1.0}


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
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, "data.resolutions={8: 1, 16: 1}"]))
    with pytest.raises(UserError, match=r"data\.size: 16 is not the largest.*set it to 24"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, "data.resolutions={8: 1, 24: 1}"]))


def test_differences_are_named():
    other = load_config(CONFIG_FOLDER / "demo.yaml")
    assert config_differences(other, other) == []
    differences = config_differences(Config(), other, ignore=["train"])
    assert any(d.startswith("model.channels: 64 -> 32") for d in differences)
    assert not any(d.startswith("train") for d in differences)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_whole_and_holds_only_what_differs(path):
    import yaml

    config = load_config(path)
    check_config(config)
    assert config.name == path.stem

    def same(values, defaults, prefix=""):
        for key, value in values.items():
            default = getattr(defaults, key)
            if isinstance(value, dict) and not isinstance(default, dict):
                yield from same(value, default, f"{prefix}{key}.")
            elif value == (list(default) if isinstance(default, tuple) else default):
                yield prefix + key

    assert list(same(yaml.safe_load(path.read_text()), Config())) == []


def test_the_published_setting_is_about_the_published_size():
    with torch.device("meta"):
        modules = build_modules(load_config(CONFIG_FOLDER / "ffhq_256.yaml"))
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    assert parameters == {"denoiser": 361_556_163, "encoder": 128_666_432}


def parameters(name, *overrides):
    with torch.device("meta"):
        modules = build_modules(load_config(CONFIG_FOLDER / f"{name}.yaml", overrides))
    return sum(p.numel() for module in modules.values() for p in module.parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds(path):
    assert parameters(path.stem) > 1_000_000


def test_parameter_counts_of_dfu_and_its_baselines():
    assert parameters("dfu_ffhq_96") == parameters("dfu_church_96") == 790_870_659
    assert parameters("unet_multires_96") == 50_576_003
    assert parameters("fno_unet_96") == 754_819_715
    assert parameters("infdiff_dfu_128") == 60_579_843
    assert parameters("unet_single_96") == 56_047_107


@pytest.mark.parametrize("name", ["unet_landscapes_64", "fno_landscapes_64", "unet_single_landscapes_64"])
def test_small_baselines_have_as_many_parameters_as_dfu(name):
    assert parameters(name) == pytest.approx(parameters("dfu_landscapes_64"), rel=0.03)


def test_modes_that_no_grid_holds_are_warned_of_once_and_clamped():
    path, many = CONFIG_FOLDER / "dfu_landscapes_64.yaml", "model.grid.modes=50"
    (warning,) = config_warnings(load_config(path, [many]))
    assert "model.grid.modes: 50" in warning
    assert "64 hold 32" in warning
    assert parameters("dfu_landscapes_64", many) == parameters("dfu_landscapes_64", "model.grid.modes=32")
    assert config_warnings(load_config(path, ["model.grid.modes=32"])) == []
    assert config_warnings(load_config(path, [many, "model.grid.kind=unet"])) == []
    inside = load_config(CONFIG_FOLDER / "demo.yaml", ["model.grid.kind=dfu"])
    assert "16 hold 8" in config_warnings(inside)[0], "the inner grid counts, not the image"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.subsample=0", "train.subsample"),
        ("train.subsample=1000000", "train.subsample"),
        ("train.subsample=nan", "train.subsample"),
        ("data.size=0", "data.size"),
        ("data.size=abc", "data.size"),
        ("model.kernel_size=4", "model.kernel_size"),
        ("model.grid.size=128", "model.grid.size"),
        ("model.backend=magic", "model.backend"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.steps=-1", "train.steps"),
        ("diffusion.schedule=cubic", "diffusion.schedule"),
        ("sample.steps=2000", "sample.steps"),
    ],
)
def test_settings_that_cannot_work_are_named(override, key):
    with pytest.raises(UserError, match=key):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [override]))


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.kind=cloud", ["model.kind", "cloud", "points, grid"]),
        ("model.grid.kind=fno", ["model.grid.kind", "fno", "unet, dfu"]),
        ("model.z_dim=8", ["model.z_dim: 8", "set it to 0"]),
        ("train.subsample=4", ["train.subsample: 4", "set it to 1"]),
        ("train.latent_noise=0.1", ["train.latent_noise", "set it to 0"]),
        ("sample.sampler=ddim", ["sample.sampler", "heun"]),
        ("sample.upscale=cubic", ["sample.upscale", "bilinear"]),
        ("edm.noise=pink", ["edm.noise", "white, mollified"]),
        ("edm.sigma_max=0.001", ["edm.sigma_max", "edm.sigma_min"]),
        ("edm.data_std=0", ["edm.data_std"]),
        ("edm.rho=nan", ["edm.rho"]),
        ("model.grid.modes=-1", ["model.grid.modes"]),
        ("model.grid.kernel_size=2", ["model.grid.kernel_size"]),
        ("model.grid.attention_levels=[2]", ["model.grid.attention_levels", "0 to 1"]),
        ("model.grid.factor_rank=-2", ["model.grid.factor_rank"]),
    ],
)
def test_settings_of_a_grid_network_alone_that_cannot_work_are_named(override, parts):
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", TINY_GRID))
    with pytest.raises(UserError) as error:
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, override]))
    for part in parts:
        assert part in str(error.value)


def test_mollified_edm_noise_wants_a_mollifier():
    settings = [*TINY_GRID, "edm.noise=mollified"]
    check_config(load_config(CONFIG_FOLDER / "demo.yaml", settings))
    with pytest.raises(UserError, match=r"diffusion\.sigma"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*settings, "diffusion.sigma=0"]))


def test_heun_is_not_for_points():
    with pytest.raises(UserError, match=r"sample.sampler: 'heun': choose one of ddim"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", ["sample.sampler=heun"]))


def test_points_are_a_part_of_the_pixels():
    assert point_count(load_config(CONFIG_FOLDER / "ffhq_256.yaml")) == 256 * 256 // 4

"""Configurations become networks of the sizes that are published."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.config.keys import sections_of
from infdiff.config.settings import GridSettings, ModelSettings
from infdiff.methods.checks import config_warnings
from infdiff.methods.grid_networks import NETWORKS
from infdiff.methods.method import build_modules, method_of
from infdiff.shipped import CONFIG_FOLDER

CONFIGS = sorted(CONFIG_FOLDER.glob("*.yaml"))


def test_the_published_setting_is_about_the_published_size():
    with torch.device("meta"):
        modules = build_modules(load_config(CONFIG_FOLDER / "ffhq_256.yaml"))
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    assert parameters == {"denoiser": 359_684_419, "encoder": 112_937_024}


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
    assert config_warnings(load_config(path, ["model.grid.kind=unet"])) == []
    inside = load_config(CONFIG_FOLDER / "demo.yaml", ["model.grid_size=16"])
    assert "16 hold 8" in config_warnings(inside)[0], "the inner grid counts, not the image"


def test_every_kind_of_settings_has_a_network():
    kinds = sections_of(ModelSettings.model_fields["grid"].annotation)
    assert set(NETWORKS) == set(kinds) == set(GridSettings.__subclasses__())


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (method, settings.model_fields["kind"].default)
        for settings in NETWORKS
        for method in (("infinity_diff",) if settings.on_points else ("infinity_diff", "edm"))
    ],
)
@pytest.mark.parametrize("settings", [[], ["model.separate_latent=true", "model.global_pooling=true"]], ids=str)
def test_every_registered_network_reaches_all_of_its_weights(kind, method, settings, tmp_path):
    """Inside ∞-Diff, where its down half is the encoder's trunk, and alone on images."""
    small = [f"model.grid.{key}" for key in ("kind=" + kind, "channels=8", "multipliers=[1,2]", "blocks=1")]
    small += ["data.size=16", "model.condition_dim=16"]
    if method == "edm":
        settings = []  # without latents
    else:
        small += ["model.grid_size=8", "model.channels=8", "model.kernel_size=3", "model.blocks=1", "model.z_dim=4"]
    path = tmp_path / "config.yaml"
    path.write_text(f"method: {method}\n")
    config = load_config(path, small + settings)
    modules = build_modules(config)
    generator = torch.Generator().manual_seed(0)
    for module in modules.values():
        for parameter in module.parameters():  # zeros at the start would hide what is not reached
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    loss = method_of(config).objective()(modules, images, generator)
    loss.backward()
    assert loss.isfinite()
    idle = [name for module in modules.values() for name, p in module.named_parameters() if p.grad is None]
    assert idle == []

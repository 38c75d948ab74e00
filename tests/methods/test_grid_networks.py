"""Configurations become networks of the sizes that are published."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.config.keys import sections_of
from infdiff.config.settings import GridSettings, ModelSettings
from infdiff.methods.checks import check_config, config_warnings
from infdiff.methods.grid_networks import NETWORKS
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sizes import resolutions, training_size
from infdiff.nn.attention import GridAttention
from infdiff.shipped import CONFIG_FOLDER
from infdiff.training.augment import LABELS

CONFIGS = sorted(CONFIG_FOLDER.glob("*.yaml"))


def test_the_published_setting_is_about_the_published_size():
    with torch.device("meta"):
        modules = build_modules(load_config(CONFIG_FOLDER / "ffhq_256.yaml"))
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    assert parameters == {"denoiser": 298_806_723, "encoder": 78_219_840}


def parameters(name, *overrides):
    with torch.device("meta"):
        modules = build_modules(load_config(CONFIG_FOLDER / f"{name}.yaml", overrides))
    return sum(p.numel() for module in modules.values() for p in module.parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds(path):
    assert parameters(path.stem) > 1_000_000


def test_parameter_counts_of_dfu_and_its_baselines():
    assert parameters("dfu_ffhq_96") == parameters("dfu_church_96") == 793_248_899
    assert parameters("unet_multires_96") == 52_954_243
    assert parameters("fno_unet_96") == 757_197_955
    assert parameters("infdiff_dfu_128") == 60_579_843
    assert parameters("unet_single_96") == 56_052_227


CHURCH = "data.resolutions={32: 1, 48: 1, 64: 1, 96: 1}"
SINGLE = [["unet_single_96", f"data.size={n}", f"model.grid.attention_sizes=[{n // 4}]"] for n in (32, 48, 64, 80)]
ROWS = [
    ["dfu_ffhq_96"],
    ["dfu_ffhq_96_weighted"],
    ["dfu_church_96"],
    ["dfu_finetune_160"],
    ["dfu_ffhq_96", "data.size=64", "data.resolutions={}"],
    ["unet_multires_96"],
    ["unet_multires_96", CHURCH],
    ["fno_unet_96"],
    ["fno_unet_96", CHURCH],
    ["unet_single_96"],
    *SINGLE,
]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_every_row_of_dfus_tables_has_attention_on_its_third_level_and_labels(row):
    config = load_config(row[0], row[1:])
    check_config(config)
    with torch.device("meta"):
        denoiser = build_modules(config)["denoiser"]
        places = []
        attention = [module for module in denoiser.modules() if isinstance(module, GridAttention)]
        for module in attention:
            module.register_forward_hook(lambda module, inputs, output: places.append(tuple(output.shape[2:])))
        size = training_size(config)
        denoiser(torch.empty(1, 3, *size), torch.empty(1), torch.empty(1, LABELS))
    third, fourth = (size[0] // 4,) * 2, (size[0] // 8,) * 2
    assert places == [*[third] * 4, fourth, *[third] * 4]  # four blocks down, the middle, four up
    assert config.train.clip == 0


def test_the_weighted_mixture_is_the_papers():
    weights = resolutions(load_config("dfu_ffhq_96_weighted"))
    assert weights == pytest.approx({(32, 32): 0.05, (48, 48): 0.1, (64, 64): 0.15, (80, 80): 0.3, (96, 96): 0.4})


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

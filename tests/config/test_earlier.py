"""Runs that the earlier layout keeps, in which every key of both kinds is there, are read and sample as they did."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infdiff
from infdiff.config.files import changed, config_differences, flatten, load_config
from infdiff.errors import UserError
from infdiff.shipped import CONFIG_FOLDER

EARLIER_RUNS = Path(__file__).parent.parent / "earlier_runs"
# What each file was saved from.
# The demo as it was: settings that there were not then are at their defaults.
DEMO = [
    "model.blocks=2",
    "model.grid_size=16",
    "model.grid={kind: unet, channels: 48, multipliers: [1, 2, 4], blocks: 1, attention_sizes: [4]}",
    "model.kernel_size=7",
    "model.sketch_side=0",
    "model.initial_taps=noise",
    "model.gated_input=false",
    "diffusion.sigma=1",
    "train.subsample=4",
    "train.times=uniform",
    "sample.sampler=ddpm",
    "sample.steps=50",
    "sample.spacing=time",
    "sample.upscale=none",
    "sample.deblur=auto",
    "train.optimiser=adamw",
    "train.learning_rate=2e-3",
    "train.steps=2700",
    "train.sample_every=1350",
    "train.checkpoint_every=900",
]
DFU = ["train.optimiser=adamw", "train.steps=4000", "train.checkpoint_every=400", "sample.upscale=none"]
# What the published configurations did not say then.
UNPUBLISHED = [
    "model.condition_dim=512",
    "model.separate_latent=false",
    "model.positions=true",
    "model.layout=true",
    "model.global_pooling=false",
    "model.standardized_latents=true",
    "model.grid.widen_in=blocks",
    "diffusion.scaled_input=true",
    "train.beta2=0.999",
    "train.ema_decay=0.9999",
    "sample.steps=50",
    "sample.deblur_epsilon=0.1",
]
# DFU's recipe as it was.
RECIPE = ["data.flip=true", "data.augment=0", "model.grid.dropout=0.05", "train.clip=1"]
SAVED = {
    "demo": ("demo", DEMO),
    "demo_overridden": (
        "demo",
        [
            *DEMO,
            "train.latent_noise=0.1",
            "data.resolutions={32: 1, 48x64: 3}",
            "data.batch_sizes={32: 4}",
            "model.grid_size=16x24",
            "data.size=64x96",
            "latent.train.clip=0.5",
            "sample.truncation=0.9",
        ],
    ),
    "dfu_landscapes_64": ("dfu_landscapes_64", DFU),
    "dfu_landscapes_64_mollified": (
        "dfu_landscapes_64",
        [*DFU, "edm.noise=mollified", "edm.mollifier_sigma=0.8", "sample.churn=10"],
    ),
    "dfu_finetune_160": (
        "dfu_finetune_160",
        ["finetune.run=runs/dfu_ffhq_96", "model.grid.attention_levels=[]", *RECIPE],
    ),
    "unet_single_96": ("unet_single_96", ["model.grid.attention_sizes=[12]", *RECIPE]),
    "infdiff_dfu_128": ("infdiff_dfu_128", []),
    "ffhq_256": ("ffhq_256", [*UNPUBLISHED, "model.depthwise=false", "train.subsample=8", "train.points=halton"]),
}


def test_every_saved_file_is_one_of_these():
    assert {path.stem for path in (EARLIER_RUNS / "configs").iterdir()} == SAVED.keys()


@pytest.mark.parametrize("name", SAVED)
def test_saved_settings_are_what_they_were(name):
    shipped, overrides = SAVED[name]
    saved = load_config(EARLIER_RUNS / "configs" / f"{name}.yaml")
    expected = load_config(CONFIG_FOLDER / f"{shipped}.yaml", overrides)
    # What was the default then is no wish; nor does it hinder a run that goes on.
    earlier = {key: False for key in ("train.compile", "latent.train.compile") if key in flatten(expected)}
    expected = changed(expected, earlier)
    assert config_differences(saved, expected) == []
    assert saved == expected


@pytest.mark.parametrize("run", ["points", "grid"])
def test_an_earlier_run_samples_what_it_did(run):
    """T x_0, which is what samples were before the blur was undone."""
    images = infdiff.load(EARLIER_RUNS / run, device="cpu").sample(1, 8, output="numpy", deblur="none")
    with Image.open(EARLIER_RUNS / f"{run}.png") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(images[0].astype(int) - expected).max() <= 1


def test_files_that_people_wrote_are_read_too(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: {kind: grid, z_dim: 0, grid: {kind: dfu, size: 16, modes: 4}}\ntrain: {subsample: 1}")
    assert load_config(path).method == "edm"
    assert load_config(path).model.grid.modes == 4
    path.write_text("model: {grid: {size: 16}}\ntrain: {code_noise: 0.1}")
    config = load_config(path)
    assert (config.model.grid_size, config.train.latent_noise) == (16, 0.1)


def test_earlier_keys_are_read_on_the_command_line_too():
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["model.grid.size=8", "train.code_noise=0.2"])
    assert (config.model.grid_size, config.train.latent_noise) == (8, 0.2)
    config = load_config(CONFIG_FOLDER / "landscapes_64.yaml", ["model.kind=grid", "sample.sampler=heun"])
    assert config.method == "edm"


def test_an_unknown_key_beside_an_earlier_one_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("model: {kind: grid, chanels: 8}")
    with pytest.raises(UserError, match=r"unknown key 'model\.chanels'"):
        load_config(tmp_path / "c.yaml")

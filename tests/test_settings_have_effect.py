"""Every setting of every kind of configuration changes something that can be seen, or another value is refused.

The table says for each key another value and where the difference shows; a key that is not in it fails.
"""

import pytest

from infdiff.config.files import changed, flatten, load_config
from infdiff.config.keys import KEYS, is_known, kinds_of
from infdiff.config.settings import InfinityDiffConfig
from infdiff.errors import UserError
from infdiff.methods.checks import check_config
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_EDM, TINY_GRID
from tests.observables import (
    algorithms,
    backends,
    batches,
    deblurred,
    followed,
    frozen,
    latent_model,
    latent_training,
    loss,
    mixture,
    on_a_gpu,
    opened,
    samples,
    training,
    weights,
    whitened,
)

SHORT = [
    "train.steps=3",
    "train.warmup=0",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.validation_images=6",
]
POINTS = [*TINY, *SHORT, "latent.width=16", "latent.train.steps=3", "latent.train.log_every=1"]
KINDS = {
    "infinity_diff, unet": POINTS,
    "infinity_diff, dfu": [*POINTS, "model.grid.kind=dfu", "model.grid.modes=3"],
    "infinity_diff, sparse": [*POINTS, "model.grid.kind=sparse"],
    "edm, unet": [*TINY_EDM, *SHORT],
    "edm, dfu": [*TINY_GRID, *SHORT],
}
# How weights are trained does not depend on the kind of the grid network.
TRAINED_KINDS = ("infinity_diff, unet", "edm, dfu")


# Key: another value, where it shows, and settings under which it does.
OPTIMISER = {
    "steps": (4, {}),
    "batch_size": (2, {}),
    "accumulate": (2, {}),
    "learning_rate": (0.1, {}),
    "warmup": (2, {}),
    "decay_from": (0.1, {}),
    "beta2": (0.5, {}),
    "weight_decay": (0.5, {}),
    "clip": (1e-4, {}),
    "ema_decay": (0.1, {}),
    "optimiser": ("muon", {}),
    "muon_scale": (1.0, {"optimiser": "muon"}),
    "log_every": (2, {}),
    "checkpoint_every": (1, {}),
    "keep_checkpoints": (1, {"checkpoint_every": 1, "steps": 5, "keep_checkpoints": 4}),
    "max_bad_steps": (1, {"weight_decay": 1e38, "learning_rate": 10, "max_bad_steps": 2, "steps": 8}),
}
MULTI = {"data.resolutions": {"8": 1, "16": 1}}
TABLE = {
    "name": ("other", opened, {}),
    "seed": (1, weights, {}),
    "data.path": ("nowhere.lmdb", opened, {}),
    "data.validation_path": ("nowhere.lmdb", opened, {}),
    "data.validation_fraction": (0.5, batches, {}),
    "data.size": (24, batches, {}),
    "data.resolutions": ({"8": 1, "16": 1}, batches, {}),
    "data.batch_sizes": ({"8": 2}, batches, MULTI),
    "data.flip": (False, loss, {}),
    "data.channels": (2, weights, {}),
    "data.valid_pixels": ({"16": 10}, loss, {}),
    "data.condition_channels": (1, weights, {}),
    "data.augment": (0.3, loss, {}),
    "data.cache": ("none", batches, {}),
    "data.workers": (0, batches, {"data.cache": "none"}),
    "model.condition_dim": (24, weights, {}),
    "model.condition.classes": (3, weights, {}),
    "model.condition.vector": (3, weights, {}),
    "model.grid.channels": (16, weights, {}),
    "model.grid.multipliers": ((1, 1), weights, {}),
    "model.grid.blocks": (2, weights, {}),
    "model.grid.dropout": (0.5, loss, {}),
    "model.grid.dropout_size": (4, loss, {}),
    "model.grid.attention_sizes": ((4,), weights, {}),
    "model.grid.widen_in": ("resampling", weights, {}),
    "model.grid.attention_levels": ((1,), weights, {}),
    "model.grid.modes": (2, weights, {}),
    "model.grid.kernel_size": (1, weights, {}),
    "model.grid.factor_rank": (1, weights, {}),
    "model.channels": (16, weights, {}),
    "model.kernel_size": (5, weights, {}),
    "model.blocks": (2, weights, {}),
    "model.mlp_ratio": (3, weights, {}),
    "model.depthwise": (False, weights, {}),
    "model.nonlinear_kernel": (True, weights, {}),
    "model.backend": ("dense", backends, {}),
    "model.z_dim": (0, weights, {}),
    "model.separate_latent": (True, weights, {}),
    "model.positions": (False, weights, {}),
    "model.layout": (False, weights, {}),
    "model.global_pooling": (True, weights, {}),
    "model.standardized_latents": (False, weights, {}),
    "model.initial_taps": ("smooth", weights, {}),
    "model.gated_input": (True, weights, {}),
    "model.sharp": (True, weights, {}),
    "model.sketch_side": (2, weights, {}),
    "model.grid_size": (4, loss, {}),
    "model.scale_grid": (True, loss, {}),
    "diffusion.schedule": ("linear", loss, {}),
    "diffusion.steps": (500, loss, {}),
    "diffusion.shift": (2.0, loss, {}),
    "diffusion.sigma": (2.0, loss, {}),
    "diffusion.target": ("noise", loss, {}),
    "diffusion.weighting": ("min_snr", loss, {}),
    "diffusion.data_std": (0.3, loss, {}),
    "diffusion.scaled_input": (False, loss, {}),
    "edm.noise": ("mollified", loss, {}),
    "edm.mollifier_sigma": (2.0, loss, {"edm.noise": "mollified"}),
    "edm.data_std": (0.3, loss, {}),
    "edm.log_mean": (-0.5, loss, {}),
    "edm.log_std": (0.5, loss, {}),
    "edm.sigma_min": (0.1, samples, {}),
    "edm.sigma_max": (20.0, samples, {}),
    "edm.rho": (3.0, samples, {}),
    "train.subsample": (2.0, loss, {}),
    "train.points": ("halton", loss, {}),
    "train.times": ("lognormal", loss, {}),
    "train.times_log_mean": (0.5, loss, {"train.times": "lognormal"}),
    "train.times_log_std": (0.6, loss, {"train.times": "lognormal"}),
    "train.sharp_weight": (1.0, loss, {"model.sharp": True}),
    "train.latent_noise": (0.5, loss, {}),
    "train.condition_drop": (1.0, loss, {"data.channels": 2, "data.condition_channels": 1}),
    **{
        f"train.{name}": (value, training, {f"train.{k}": v for k, v in under.items()})
        for name, (value, under) in OPTIMISER.items()
    },
    "train.sample_every": (1, training, {}),
    "train.validation_images": (3, training, {}),
    "train.eval_every": (2, training, {"train.eval_images": 2}),
    "train.eval_images": (4, training, {"train.eval_every": 2, "train.eval_images": 2}),
    "train.bfloat16": (False, on_a_gpu, {}),
    "train.compile": (True, on_a_gpu, {}),
    "train.graph": (False, on_a_gpu, {}),
    "train.parallel": ("fsdp", on_a_gpu, {}),
    "train.log": (("jsonl", "tensorboard"), followed, {}),
    "train.deterministic": (True, algorithms, {}),
    "finetune.run": ("nowhere", mixture, {"finetune.size": 24}),
    "finetune.size": (24, mixture, {}),
    "finetune.weight": (0.5, mixture, {"finetune.size": 24}),
    "finetune.freeze": ("none", frozen, {"finetune.size": 24}),
    "latent.width": (24, latent_model, {}),
    "latent.layers": (3, latent_model, {}),
    "latent.process": ("edm", latent_model, {}),
    "latent.whiten": (True, whitened, {}),
    "latent.schedule": ("cosine", latent_model, {}),
    "latent.diffusion_steps": (500, latent_model, {}),
    "latent.sample_steps": (2, samples, {}),
    **{
        f"latent.train.{name}": (value, latent_training, {f"latent.train.{k}": v for k, v in under.items()})
        for name, (value, under) in OPTIMISER.items()
    },
    "latent.train.bfloat16": (True, on_a_gpu, {}),
    "latent.train.compile": (True, on_a_gpu, {}),
    "latent.train.graph": (True, on_a_gpu, {}),
    "latent.train.parallel": ("fsdp", on_a_gpu, {}),
    "latent.train.log": (("jsonl", "tensorboard"), followed, {}),
    "latent.train.deterministic": (True, algorithms, {}),
    "sample.sampler": ("dpm++", samples, {}),
    "sample.steps": (2, samples, {}),
    "sample.eta": (1.0, samples, {"sample.sampler": "ddim"}),
    "sample.variance": ("beta", samples, {"sample.sampler": "ddpm"}),
    "sample.limits": (((-0.1, 0.1),), samples, {}),
    "sample.truncation": (0.2, samples, {}),
    "sample.churn": (20.0, samples, {}),
    "sample.upscale": ("bilinear", samples, {}),
    "sample.spacing": ("noise", samples, {}),
    "sample.deblur": ("none", samples, {}),
    "sample.deblur_epsilon": (0.5, deblurred, {}),
}
# Told apart by what other settings there are; tests/config/test_settings.py holds that.
CHOICES = {"method", "model.grid.kind"}
# Other settings than those of the table, under which it shows.
UNDER = {
    "edm, dfu": {"sample.deblur_epsilon": {"edm.noise": "mollified"}, "sample.deblur": {"edm.noise": "mollified"}},
    "infinity_diff, dfu": {"model.scale_grid": {"data.resolutions": {"16": 1, "32": 1}}},
}
# What kinds refuse: another value than the only one, under these settings, and the key in the error.
REFUSED = {
    "infinity_diff, unet": {"model.scale_grid": ({}, "model.scale_grid")},
    "infinity_diff, sparse": {"model.scale_grid": ({}, "model.scale_grid")},
    "edm, unet": {
        "sample.sampler": ({}, "sample.sampler"),
        "data.valid_pixels": ({"data.augment": 0.3}, "data.augment"),
        "finetune.run": ({"finetune.size": 24}, "finetune.size"),
        "finetune.size": ({}, "finetune.size"),
        "finetune.weight": ({"finetune.size": 24}, "finetune.size"),
        "finetune.freeze": ({"finetune.size": 24}, "finetune.size"),
    },
    "edm, dfu": {
        "sample.sampler": ({}, "sample.sampler"),
        "data.valid_pixels": ({"data.augment": 0.3}, "data.augment"),
    },
}


def test_the_table_holds_every_key():
    assert set(TABLE) | CHOICES == set(KEYS)


# What was observed of configurations that several settings are changed in.
SEEN = {}


def rows():
    for kind, overrides in KINDS.items():
        kinds = kinds_of(load_config(CONFIG_FOLDER / "demo.yaml", overrides).model_dump())
        for key, (_, observe, _) in TABLE.items():
            once = observe in (
                training,
                latent_training,
                opened,
                on_a_gpu,
                followed,
                algorithms,
                samples,
                deblurred,
                latent_model,
                batches,
            )
            if is_known(key, kinds) and not (once and kind not in TRAINED_KINDS):
                yield pytest.param(kind, key, id=f"{kind}: {key}")


@pytest.mark.parametrize(("kind", "key"), list(rows()))
def test_every_setting_has_an_effect(kind, key, tmp_path):
    value, observe, under = TABLE[key]
    base = load_config(CONFIG_FOLDER / "demo.yaml", KINDS[kind])
    if key in REFUSED.get(kind, {}):
        under, named = REFUSED[kind][key]
        with pytest.raises(UserError, match=named):
            check_config(changed(base, {**under, key: value}))
        return
    base = changed(base, UNDER.get(kind, {}).get(key, under))
    other = changed(base, {key: value})
    assert flatten(other)[key] != flatten(base)[key]
    kept = (observe, "latent" in key, base.model_dump_json())
    if kept not in SEEN:
        SEEN[kept] = observe(base, tmp_path / f"{key} before")
    assert SEEN[kept] != observe(other, tmp_path / f"{key} after")


@pytest.mark.parametrize("kind", TRAINED_KINDS)
@pytest.mark.parametrize("observe", [weights, loss, training, batches, mixture])
def test_without_a_change_nothing_differs(kind, observe, tmp_path):
    config = load_config(CONFIG_FOLDER / "demo.yaml", KINDS[kind])
    assert observe(config, tmp_path / "a") == observe(config, tmp_path / "b")


def test_samples_of_the_same_settings_do_not_differ(tmp_path):
    config = InfinityDiffConfig()
    assert samples(config, tmp_path / "a") == samples(config, tmp_path / "b")

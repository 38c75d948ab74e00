"""Configurations of the papers' models hold the papers' numbers; what these leave open is as in the authors' code.

∞-Diff: Bond-Taylor and Willcocks, ICLR 2024; its code: github.com/samb-t/infty-diff. DFU: Havrilla et al.
"""

import pytest
import torch

from infdiff.benchmark.flops import flop_counter
from infdiff.config.files import load_config
from infdiff.config.keys import KEYS
from infdiff.config.settings import InfinityDiffConfig
from infdiff.methods.method import build_modules, method_of
from infdiff.shipped import CONFIG_FOLDER

# Key: value, and where it is said.
INFINITY_DIFF = {
    # The process.
    "diffusion.schedule": ("cosine", "appendix A"),
    "diffusion.steps": (1000, "appendix A"),
    "diffusion.shift": (1.0, "appendix A: the schedule of Nichol and Dhariwal"),
    "diffusion.sigma": (1.0, "appendix A: a Gaussian blur with a variance of 1.0"),
    "diffusion.target": ("mollified_noise", "section 3.2, Eq. 42"),
    "diffusion.weighting": ("uniform", "section 3.2, Eq. 42: the simplified loss"),
    "diffusion.scaled_input": (False, "Eq. 42: f(x_t, t)"),
    "train.times": ("uniform", "section 3.2, Eq. 42; code: schedule_sampler 'uniform'"),
    "train.subsample": (4.0, "section 5: trained on 1/4 of pixels"),
    "train.points": ("uniform", "sections 4.3 and 5: randomly selected"),
    "train.latent_noise": (0.0, "section 5"),
    # The network.
    "model.blocks": (3, "appendix A: 3 sparse residual blocks"),
    "model.kernel_size": (7, "appendix A"),
    "model.channels": (64, "appendix A"),
    "model.depthwise": (True, "section 4.3, appendix A"),
    "model.nonlinear_kernel": (False, "section 5, Table 2"),
    "model.mlp_ratio": (2, "code: mult=2; appendix A: a three layer MLP"),
    "model.condition_dim": (256, "code: time_emb_dim"),
    "model.separate_latent": (True, "section 5: a diffusion autoencoder (Preechakul et al. 2022); code: z_mlp"),
    "model.positions": (False, "section 4, Fig. 4: x at the points alone"),
    "model.layout": (False, "section 4.2, Fig. 4"),
    "model.global_pooling": (True, "section 5: small latent vectors (Preechakul et al. 2022); code: mean"),
    "model.standardized_latents": (False, "section 5"),
    "model.sketch_side": (0, "section 5"),
    "model.gated_input": (False, "Fig. 4"),
    "model.sharp": (False, "section 3.2: T x_0 alone is sampled"),
    "model.initial_taps": ("noise", "code: uniform draws"),
    "model.scale_grid": (False, "appendix A: fixed at a resolution"),
    "model.grid.kind": ("unet", "appendix A: as Nichol and Dhariwal (2021)"),
    "model.grid.blocks": (2, "code: uno_blocks_per_level"),
    "model.grid.attention_sizes": ((16, 8), "appendix A"),
    "model.grid.widen_in": ("resampling", "code: conv_uno, the convolutions between levels"),
    "model.grid.dropout_size": (16, "appendix A: where attention is"),
    "model.grid.dropout": (0.1, "code: uno_dropout"),
    # Training.
    "train.optimiser": ("adamw", "appendix A: Adam"),
    "train.weight_decay": (0.0, "appendix A: Adam"),
    "train.warmup": (0, "code: warmup_steps"),
    "train.decay_from": (1.0, "code: a constant rate"),
    "train.beta2": (0.99, "code: adam_beta2"),
    "train.clip": (1.0, "code: clip_grad_norm_"),
    "train.ema_decay": (0.9995, "code: 0.995 at every tenth step"),
    "data.flip": (True, "code: RandomHorizontalFlip"),
    # The latent model: "the same as used by Preechakul et al. (2022)", appendix A.
    "latent.width": (2048, "appendix A; code: hid_channels"),
    "latent.process": ("ddpm", "appendix A: as Preechakul et al. (2022)"),
    "latent.whiten": (False, "appendix A: as Preechakul et al. (2022), each number by itself"),
    "latent.schedule": ("constant", "appendix A; code: const0.008"),
    "latent.diffusion_steps": (1000, "appendix A; code"),
    "latent.train.batch_size": (256, "code: batch_size"),
    "latent.train.learning_rate": (1e-4, "code: learning_rate"),
    "latent.train.weight_decay": (0.04, "code: weight_decay"),
    # Sampling.
    "sample.sampler": ("ddim", "section 5: the deterministic DDIM interpretation"),
    "sample.eta": (0.0, "section 5: the deterministic DDIM interpretation"),
    "sample.steps": (100, "section 5"),
    "sample.spacing": ("time", "code: space_timesteps"),
    "sample.deblur": ("auto", "section 3.2: the Wiener filter"),
    "sample.deblur_epsilon": (0.05, "code: inv_snr"),
    "sample.truncation": (1.0, "section 5"),
    "sample.upscale": ("none", "section 5, Fig. 2: sampled at the resolution"),
}
AT_256 = {
    "data.size": (256, "section 5"),
    "model.z_dim": (1024, "appendix A"),
    "model.grid_size": (128, "appendix A"),
    "model.grid.channels": (128, "appendix A"),
    "model.grid.multipliers": ((1, 2, 4, 8, 8), "appendix A: doubled up to a maximum factor of 8; code: uno_mults"),
    "train.batch_size": (32, "appendix A"),
    "train.learning_rate": (5e-5, "appendix A"),
}
# Of the ablations at 128 pixels (section 5, Tables 2 and 3) the paper gives none of these.
AT_128 = {
    "data.size": (128, "Table 3: FFHQ 128"),
    "model.z_dim": (256, "code: configs/ffhq_128_config.py"),
    "model.grid_size": (64, "code: configs/ffhq_128_config.py"),
    "model.grid.channels": (64, "code: configs/ffhq_128_config.py"),
    "model.grid.multipliers": ((1, 2, 4, 8), "code: configs/ffhq_128_config.py"),
    "train.batch_size": (16, "code: configs/ffhq_128_config.py"),
    "train.learning_rate": (1e-4, "code: configs/ffhq_128_config.py"),
}
AT_64 = AT_128 | {
    "data.size": (64, "Table 1: CelebAHQ-64"),
    "model.grid_size": (32, "half of the size, as at 128 and 256"),
    "model.grid.multipliers": ((1, 2, 4), "attention at 16 and 8 (appendix A), on the two last grids as at 128"),
}
LATENT_LAYERS = {"latent.layers": (10, "code: configs/ffhq_latent_config.py")}
DFU = {
    "data.size": (96, "section 3: the largest resolution"),
    "train.steps": (400_000, "section 3"),
    "train.batch_size": (256, "section 3"),
    "sample.sampler": ("heun", "section 3: the EDM scheme"),
    "sample.steps": (18, "section 3"),
    "sample.churn": (0.0, "section 3: EDM's deterministic sampler takes 18 steps"),
}
DUAL = DFU | {
    "model.grid.kind": ("dfu", "section 2"),
    "model.grid.blocks": (4, "section 2: 4 Dual-FNO blocks per layer"),
    "model.grid.kernel_size": (3, "section 2: k = 3"),
    "model.grid.modes": (16, "section 2: M = 16"),
    "model.grid.factor_rank": (0, "Eqs. 1 and 4"),
}
MIXED = {
    "data.resolutions": (dict.fromkeys(("32", "48", "64", "80", "96"), 1.0), "section 3: by default a uniform mixture"),
}
PUBLISHED = {
    "ffhq_256": INFINITY_DIFF | AT_256 | LATENT_LAYERS,
    "celebahq_256": INFINITY_DIFF | AT_256 | LATENT_LAYERS,
    "church_256": INFINITY_DIFF | AT_256 | {"latent.layers": (20, "code: configs/churches_latent_config.py")},
    "ffhq_128": INFINITY_DIFF | AT_128 | LATENT_LAYERS,
    "celebahq_128": INFINITY_DIFF | AT_128 | LATENT_LAYERS,
    "celebahq_64": INFINITY_DIFF | AT_64 | LATENT_LAYERS,
    "dfu_ffhq_96": DUAL | MIXED,
    "dfu_church_96": DUAL
    | {"data.resolutions": (dict.fromkeys(("32", "48", "64", "96"), 1.0), "caption of Table 5: a uniform mixture")},
    "unet_multires_96": DUAL | MIXED | {"model.grid.modes": (0, "section 3: Multi-resolution UNet")},
    "fno_unet_96": DUAL | MIXED | {"model.grid.kernel_size": (1, "section 3: FNO UNet, kernels of size 1")},
    "unet_single_96": DFU
    | {
        "model.grid.kind": ("unet", "section 3: Single-res UNet + Bilinear"),
        "data.resolutions": ({}, "section 3: a fixed resolution r = 96"),
        "sample.upscale": ("bilinear", "section 3: bilinear interpolation to the target resolution"),
    },
}
# What the papers have no word for, or what only says how a run is computed and shown.
OPEN = (
    "name",
    "seed",
    "data.",
    "train.",
    "latent.",
    "model.backend",
    "model.condition.",
    "diffusion.data_std",
    "sample.limits",
    "sample.variance",
    "method",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_holds_the_papers_numbers(name):
    config = load_config(CONFIG_FOLDER / f"{name}.yaml")
    differences = []
    for key, (value, where) in PUBLISHED[name].items():
        held = config
        for part in key.split("."):
            held = getattr(held, part)
        if held != value:
            differences.append(f"{key}: {held}, not {value} ({where})")
    assert differences == []


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.startswith(("dfu", "unet", "fno"))])
def test_no_setting_of_network_process_and_sampling_is_left_out(name):
    kinds = {"method": "infinity_diff", "model.grid.kind": "unet"}
    keys = {key for key, kind in KEYS.items() if any(set(k.kinds.items()) <= set(kinds.items()) for k in kind)}
    missing = keys - PUBLISHED[name].keys()
    assert {key for key in missing if not key.startswith(OPEN)} == set()


def test_the_network_at_256_costs_no_more_than_the_authors():
    """Theirs: 444 million parameters, 738 GFLOP an image for a training step, three forward passes."""
    config = load_config(CONFIG_FOLDER / "ffhq_256.yaml")
    with torch.device("meta"):
        modules = build_modules(config)
    assert sum(p.numel() for module in modules.values() for p in module.parameters()) <= 444e6
    with flop_counter() as counter:
        method_of(config).trace(modules, (256, 256))
    assert 700e9 < 3 * counter.get_total_flops() <= 738e9


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith(("dfu", "unet_multires", "fno"))])
def test_dfu_and_its_baselines_have_four_levels(name):
    """Section 2: L = 4."""
    assert len(load_config(CONFIG_FOLDER / f"{name}.yaml").model.grid.multipliers) == 4


def test_the_fine_tuning_is_appendix_c():
    config = load_config(CONFIG_FOLDER / "dfu_finetune_160.yaml")
    assert (config.finetune.size, config.finetune.weight) == (160, 0.2)
    assert (config.train.learning_rate, config.train.steps) == (1e-4, 10_000)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith(("256", "128", "64"))])
def test_the_wiener_filter_is_what_undoes_the_blur(name):
    config = load_config(CONFIG_FOLDER / f"{name}.yaml")
    assert isinstance(config, InfinityDiffConfig)
    assert method_of(config).deblurs[0] == "wiener"

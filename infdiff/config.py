"""Every setting of a run: frozen dataclasses, read from YAML and `key=value` overrides, strictly.

Only `build` and the scripts import this module. An unknown key, or a value of the wrong type, is an error naming it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from infdiff.errors import UserError
from infdiff.shipped import CONFIG_FOLDER, find_config
from infdiff.training.settings import TrainSettings


@dataclass(frozen=True)
class DataConfig:
    path: str = ""  # LMDB of prepare_data.py; empty: the embedded demo faces
    validation_path: str = ""  # LMDB of held-out images; empty: a part of `path` is held out
    validation_fraction: float = 0.05  # held out of `path` where there is no validation_path
    size: int | str = 64  # base resolution, and that of training unless resolutions are given: 64, or 96x128 (H x W)
    # Trained on these, with these weights, one a step: {32: 0.2, 48x64: 0.8}; empty: on `size` alone.
    resolutions: dict[str, float] = field(default_factory=dict)
    batch_sizes: dict[str, int] = field(default_factory=dict)  # at a resolution; train.batch_size at the others
    flip: bool = False  # mirror every second image
    cache: str = "ram"  # none (decode in workers), ram or device (all images as uint8)
    workers: int = 2  # processes that decode, with cache: none


@dataclass(frozen=True)
class GridConfig:
    kind: str = "unet"  # unet, or dfu: dual convolutions, nothing depends on the size
    size: int | str = 32  # of the grid inside a network on points: 32, or 32x48
    scale_with_output: bool = False  # dfu: that grid is as much larger as the image is than data.size
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2  # residual blocks a level
    dropout: float = 0.0
    dropout_size: int = 16  # unet: dropout on grids of at most this side
    attention_sizes: tuple[int, ...] = (16, 8)  # unet: attention on grids with these sides
    attention_levels: tuple[int, ...] = ()  # dfu: levels with attention; 0 is the top one
    modes: int = 16  # dfu: lowest frequencies of the top level's spectral convolutions; 0: the multi-resolution U-Net
    kernel_size: int = 3  # dfu: of the spatial convolutions; 1: the FNO U-Net
    factor_rank: int = 0  # dfu: of the spectral weights; 0: full ones


@dataclass(frozen=True)
class ModelConfig:
    kind: str = "points"  # points: ∞-Diff, mollified diffusion; grid: the grid network alone on whole images, EDM
    channels: int = 64  # of the sparse level
    kernel_size: int = 7
    blocks: int = 3  # sparse blocks down, and as many up
    mlp_ratio: int = 2
    depthwise: bool = True  # false: regular convolutions, for the ablation
    backend: str = "auto"  # auto, lattice, torchsparse or dense: how sparse convolutions are computed
    condition_dim: int = 512  # of the vector made from t and z
    z_dim: int = 1024  # latent; 0: no autoencoder
    grid: GridConfig = field(default_factory=GridConfig)


@dataclass(frozen=True)
class DiffusionConfig:
    schedule: str = "cosine"  # cosine, linear or constant
    steps: int = 1000
    shift: float = 1.0  # of the schedule: factor of signal over noise at every time
    sigma: float = 1.0  # width of the mollifier in training pixels
    target: str = "mollified_noise"  # mollified_noise, v, noise or image
    data_std: float = 0.5  # root mean square of the images' values in [-1, 1]


@dataclass(frozen=True)
class EDMConfig:
    """The process of model.kind grid; the other one's is `diffusion`."""

    noise: str = "white"  # white: of variance 1 per pixel at every resolution; mollified: diffusion.sigma wide
    data_std: float = 0.5  # standard deviation of the images' values in [-1, 1]
    log_mean: float = -1.2  # of ln sigma in training
    log_std: float = 1.2
    sigma_min: float = 0.002  # of sampling
    sigma_max: float = 80.0
    rho: float = 7.0  # steps of sampling are even in sigma^(1 / rho)


@dataclass(frozen=True)
class FinetuneConfig:
    """DFU's fine-tuning: also on the largest resolution, bilinearly enlarged (appendix C)."""

    run: str = ""  # whose averaged weights training starts from; `train.py --finetune` sets it
    size: int | str = 0  # R, larger than all of data.resolutions; 0: no fine-tuning
    weight: float = 0.2  # w_R; the resolutions share the rest evenly


@dataclass(frozen=True)
class LatentConfig:
    """The second model, of the latents: scripts/train_latent.py."""

    width: int = 2048
    layers: int = 10
    schedule: str = "constant"
    diffusion_steps: int = 1000
    sample_steps: int = 100  # of DDIM, when images are sampled
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            batch_size=256, learning_rate=1e-4, weight_decay=0.04, bfloat16=False, log_every=500
        )
    )


@dataclass(frozen=True)
class SampleConfig:
    sampler: str = "ddim"  # ddim, ddpm or dpm++; heun for model.kind grid
    steps: int = 50
    eta: float = 0.0  # noise of ddim: 0 none, 1 as much as ddpm
    churn: float = 0.0  # noise of heun (S_churn): 0 none
    truncation: float = 1.0  # of the sampled latents' spread about their mean
    upscale: str = "none"  # bilinear: sample at the training size and resize
    deblur_epsilon: float = 0.1  # noise-to-signal ratio of the Wiener inverse


@dataclass(frozen=True)
class Config:
    name: str = "run"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    edm: EDMConfig = field(default_factory=EDMConfig)
    train: TrainSettings = field(default_factory=TrainSettings)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Defaults, then the YAML file, then `key.path=value` overrides.

    Raises UserError naming the file and the key that is unknown or has a value of the wrong type.
    """
    path = find_config(path)
    try:
        text = path.read_text()
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.yaml")))
        hint = f" (in configs/: {known})" if known else ""
        raise UserError(f"cannot read config {path}: {error.strerror}{hint}") from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"config {path} must hold keys and values")
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r} is not an override: write key.path=value, as in train.batch_size=16")
        section, _, name = override.split("=")[0].partition(".")
        if f"{section}.{name}" in _MAPPINGS and isinstance(values.get(section), dict):
            # A whole mapping takes the place of the file's; one of its keys is added to it.
            values[section].pop(name, None)
    merged = _merge(OmegaConf.structured(Config), values, f"config {path}")
    try:
        given = OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"cannot read {' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    return _to_config(_merge(merged, OmegaConf.to_container(given), "command line"))


def save_config(config: Config, path: Path) -> None:
    """Write every setting, defaults included."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def config_differences(a: Config, b: Config, ignore: Sequence[str] = ()) -> list[str]:
    """ "key: value in a -> value in b" for each setting that differs, but for keys that start with one of `ignore`."""
    left, right = _flatten(a), _flatten(b)
    return [
        f"{key}: {left[key]} -> {right[key]}"
        for key in left
        if left[key] != right[key] and not any(key == i or key.startswith(i + ".") for i in ignore)
    ]


def _merge(base: DictConfig, values: Any, where: str) -> DictConfig:
    values = _with_text_keys(values)
    _check(values, Config, "", where)
    try:
        return cast(DictConfig, OmegaConf.merge(base, OmegaConf.create(values)))
    except ValidationError as error:
        raise UserError(f"{where}: wrong type for key {error.full_key!r}: {str(error).splitlines()[0]}") from error


def _with_text_keys(values: Any) -> Any:
    """YAML reads 32 as a number; sizes such as 32x48 are text."""
    if not isinstance(values, dict):
        return values
    return {str(key): _with_text_keys(value) for key, value in values.items()}


def _check(values: Any, cls: type, prefix: str, where: str) -> None:
    """Name the first key that is unknown or whose value has another kind than the setting.

    OmegaConf would turn the text '8' into the number 8; only text that YAML itself fails to read as a float (1e-3) may.
    """
    hints = get_type_hints(cls)
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            near = difflib.get_close_matches(name, list(_flatten(Config())), n=1, cutoff=0.5)
            raise UserError(f"{where}: unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        wanted = hints[key]
        if isinstance(wanted, type) and is_dataclass(wanted):
            if not isinstance(value, dict):
                raise UserError(f"{where}: wrong type for key {name!r}: {value!r} should be keys and values")
            _check(value, wanted, f"{name}.", where)
        elif not _fits(value, wanted):
            kind = _KINDS.get(wanted, "a list of whole numbers")
            raise UserError(f"{where}: wrong type for key {name!r}: {value!r} should be {kind}")


_MAPPINGS = ("data.resolutions", "data.batch_sizes")
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    int | str: "64 or 48x64",
    dict[str, float]: "sizes and numbers, as {32: 0.2, 48x64: 0.8}",
    dict[str, int]: "sizes and whole numbers, as {32: 64, 64: 16}",
}


def _fits(value: Any, wanted: Any) -> bool:
    if wanted in (int, bool, str):
        return type(value) is wanted
    if wanted == int | str:
        return type(value) in (int, str)
    if wanted is float:
        return type(value) in (int, float) or (isinstance(value, str) and _reads_as_float(value))
    if get_origin(wanted) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(wanted)[1]) for item in value.values())
    return isinstance(value, list) and all(type(item) is int for item in value)


def _reads_as_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_config(values: DictConfig) -> Config:
    return cast(Config, _frozen(Config, OmegaConf.to_container(values, resolve=True)))


def _frozen(cls: type, values: Any) -> Any:
    """Nested dictionaries -> frozen dataclasses, lists -> tuples."""
    arguments, hints = {}, get_type_hints(cls)
    for f in fields(cls):
        value = values[f.name]
        if is_dataclass(hints[f.name]):
            value = _frozen(hints[f.name], value)
        arguments[f.name] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)


def _flatten(config: Config) -> dict[str, Any]:
    def walk(part: Any, prefix: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for f in fields(part):
            value = getattr(part, f.name)
            out |= walk(value, f"{prefix}{f.name}.") if is_dataclass(value) else {prefix + f.name: value}
        return out

    return walk(config, "")

"""Settings that cannot work are named before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infdiff.config import Config
from infdiff.data.batches import CACHES
from infdiff.diffusion.process import TARGETS
from infdiff.diffusion.samplers import SAMPLERS
from infdiff.diffusion.schedules import SCHEDULES
from infdiff.errors import UserError
from infdiff.grid import Size, format_size, parse_size, scale_of
from infdiff.ops import BACKENDS, rows_around
from infdiff.ops.kernels import MAX_WINDOW
from infdiff.ops.torchsparse_backend import why_missing
from infdiff.points import KINDS

_GIB = 1024**3
_BUSY_PIXELS = 1 << 19
# Memory of a guided step over that of a plain one; measured at 256 pixels.
_KEPT_FOR_GRADIENT = 5


def check_config(config: Config) -> None:
    """Raise UserError naming the first setting that cannot work."""
    size, grid = training_size(config), grid_size(config)
    point_count(config)
    choices = {
        "data.cache": (config.data.cache, CACHES),
        "model.backend": (config.model.backend, BACKENDS),
        "diffusion.schedule": (config.diffusion.schedule, SCHEDULES),
        "diffusion.target": (config.diffusion.target, TARGETS),
        "train.points": (config.train.points, KINDS),
        "sample.sampler": (config.sample.sampler, SAMPLERS),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{key}: {value!r}: choose one of {', '.join(allowed)}")
    at_least_one = {
        "train.steps": config.train.steps,
        "train.batch_size": config.train.batch_size,
        "train.accumulate": config.train.accumulate,
        "train.log_every": config.train.log_every,
        "train.sample_every": config.train.sample_every,
        "train.checkpoint_every": config.train.checkpoint_every,
        "train.keep_checkpoints": config.train.keep_checkpoints,
        "train.max_bad_steps": config.train.max_bad_steps,
        "train.validation_images": config.train.validation_images,
        "diffusion.steps": config.diffusion.steps,
        "model.channels": config.model.channels,
        "model.blocks": config.model.blocks,
        "model.mlp_ratio": config.model.mlp_ratio,
        "model.condition_dim": config.model.condition_dim,
        "model.grid.channels": config.model.grid.channels,
        "model.grid.blocks": config.model.grid.blocks,
        "sample.steps": config.sample.steps,
    }
    for key, value in at_least_one.items():
        if value < 1:
            raise UserError(f"{key}: {value}: want at least 1")
    if not 1 <= config.model.kernel_size <= MAX_WINDOW or config.model.kernel_size % 2 == 0:
        raise UserError(f"model.kernel_size: {config.model.kernel_size}: want an odd number from 1 to {MAX_WINDOW}")
    if config.model.backend == "torchsparse" and (missing := why_missing()):
        raise UserError(f"model.backend: {missing}")
    if config.model.z_dim < 0:
        raise UserError(f"model.z_dim: {config.model.z_dim}: want 0 (no autoencoder) or more")
    if config.train.code_noise < 0:
        raise UserError(f"train.code_noise: {config.train.code_noise:g}: want 0 (none) or more")
    if not config.diffusion.shift > 0:
        raise UserError(f"diffusion.shift: {config.diffusion.shift:g}: want a positive factor")
    if config.diffusion.sigma < 0 or config.diffusion.data_std <= 0:
        raise UserError("diffusion.sigma must not be negative and diffusion.data_std must be positive")
    if not 0 <= config.model.grid.dropout < 1:
        raise UserError(f"model.grid.dropout: {config.model.grid.dropout}: want 0 up to, not including, 1")
    if not config.model.grid.multipliers or min(config.model.grid.multipliers) < 1:
        raise UserError("model.grid.multipliers: want at least one level, each at least 1")
    if config.sample.steps > config.diffusion.steps:
        raise UserError(f"sample.steps: {config.sample.steps} is more than diffusion.steps {config.diffusion.steps}")
    deepest = 2 ** (len(config.model.grid.multipliers) - 1)
    if min(grid) < deepest:
        raise UserError(f"model.grid.size: {config.model.grid.size} is too small to halve for every multiplier")
    if grid[0] > size[0] or grid[1] > size[1]:
        raise UserError(f"model.grid.size: {config.model.grid.size} is larger than data.size {config.data.size}")


def check_latent(config: Config, overrides: Sequence[str]) -> None:
    """Raise UserError naming the first setting of the latent model that cannot work, or that is not one of its own."""
    for override in overrides:
        if not override.startswith("latent."):
            raise UserError(f"{override}: only settings of latent. can be given here; the run has the others")
    latent = config.latent
    if latent.layers < 2 or latent.width < 1:
        raise UserError(f"latent.layers: {latent.layers}, latent.width: {latent.width}: want at least 2 and 1")
    if latent.schedule not in SCHEDULES:
        raise UserError(f"latent.schedule: {latent.schedule!r}: choose one of {', '.join(SCHEDULES)}")
    if not 1 <= latent.sample_steps <= latent.diffusion_steps:
        raise UserError(f"latent.sample_steps: {latent.sample_steps}: want 1 to latent.diffusion_steps")
    for key in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints"):
        if getattr(latent.train, key) < 1:
            raise UserError(f"latent.train.{key}: {getattr(latent.train, key)}: want at least 1")


def sampling_options(config: Config, **given: Any) -> dict[str, Any]:
    """sampler, steps, eta and truncation: those given and not None, else the run's.

    Raises UserError naming the first one that cannot work with this run.
    """
    options = {
        name: getattr(config.sample, name) if given.get(name) is None else given[name]
        for name in ("sampler", "steps", "eta", "truncation")
    }
    _check_steps(config, options["steps"])
    if not options["truncation"] >= 0:
        raise UserError(
            f"--truncation {options['truncation']:g}: want 0 (the mean code) or more; 1 is the whole spread"
        )
    if not 0 <= options["eta"] <= 1:
        raise UserError(f"--eta {options['eta']:g}: want 0 (deterministic) to 1 (as noisy as ddpm)")
    return options


def check_guidance(config: Config, steps: int, weight: float, variety: float = 0.0) -> None:
    """Raise UserError naming the first option of guided sampling that cannot work with this run."""
    _check_steps(config, steps)
    if not 0 <= weight <= 2:
        raise UserError(f"--weight {weight:g}: want 0 (no guidance) to 2; 1 follows what is known most closely")
    if not 0 <= variety <= 1:
        raise UserError(f"--variety {variety:g}: want 0 (the code of the visible pixels) to 1 (any code)")


def _check_steps(config: Config, steps: int) -> None:
    if not 1 <= steps <= config.diffusion.steps:
        raise UserError(f"--steps {steps}: want 1 to {config.diffusion.steps}, the run's diffusion.steps")


def check_enlarging(config: Config, small: Size, res: str, steps: int, weight: float) -> Size:
    """The size that `--res` means for a picture of size `small`: one number is its longer side.

    Raises UserError when it is smaller than the picture, or another option cannot work.
    """
    check_guidance(config, steps, weight)
    size = _size("--res", res)
    if "x" not in res.lower():
        longer = max(small)
        size = round(size[0] * small[0] / longer), round(size[0] * small[1] / longer)
    if size[0] < small[0] or size[1] < small[1]:
        raise UserError(f"--res {res}: {format_size(size)} is smaller than the picture, {format_size(small)}")
    return size


def default_batch(config: Config, size: Size, *, guided: bool = False) -> int:
    """How many images of a size to sample at once: about 2 GiB of features. guided: the network is differentiated."""
    kept = _KEPT_FOR_GRADIENT if guided else 1
    return max(1, min(64, 2 * _GIB // (kept * _feature_bytes(config, size))))


def tile_rows(config: Config, size: Size, tile: str | None = None) -> int | None:
    """What `--tile` means: rows of pixels that go through the network at a time; None for all at once.

    tile: a number, "auto" for the most efficient one, "off", or None: "auto" where an image's features at once would
    take more than 3 GiB. Raises UserError for anything else.
    """
    if tile == "off" or (tile is None and _feature_bytes(config, size) <= 3 * _GIB):
        return None
    if tile is not None and tile != "auto":
        if not tile.isdigit() or int(tile) < 1:
            raise UserError(f"--tile {tile}: want a number of rows from 1 on, auto or off")
        return int(tile)
    # Half as high as the rows around them that are read, which take memory in any case; higher ones would be a quarter
    # faster. But so many pixels that a device is busy.
    reach = rows_around(config.model.kernel_size, scale_of(size, training_size(config)))
    return max(-(-reach // 2), _BUSY_PIXELS // size[1], 1)


def _feature_bytes(config: Config, size: Size) -> int:
    """Of one image whose pixels all go through the network at once."""
    features_held = config.model.blocks + 6
    return size[0] * size[1] * config.model.channels * 4 * features_held


def training_size(config: Config) -> Size:
    """The base resolution (H, W)."""
    return _size("data.size", config.data.size)


def grid_size(config: Config) -> Size:
    return _size("model.grid.size", config.model.grid.size)


def point_count(config: Config) -> int:
    """Points drawn from each training image. Raises UserError when `train.subsample` leaves none."""
    size, subsample = training_size(config), config.train.subsample
    if not subsample >= 1:
        raise UserError(f"train.subsample: {subsample:g}: want 1 (all pixels) or more")
    count = round(size[0] * size[1] / subsample)
    if count < 1:
        most = size[0] * size[1]
        raise UserError(f"train.subsample: {subsample:g} leaves no point of {most} pixels: want at most {most}")
    return count


def _size(key: str, value: int | str) -> Size:
    try:
        return parse_size(value)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error

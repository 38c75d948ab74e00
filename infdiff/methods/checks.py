"""Relations between settings, and options that scripts take; what one setting can be stands in `config`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infdiff.config import UPSCALES, Config
from infdiff.coordinates import Size, format_size
from infdiff.errors import UserError
from infdiff.methods.grid_networks import grid_warnings
from infdiff.methods.method import method_of
from infdiff.methods.sizes import batch_sizes, read_size, training_size
from infdiff.metrics.spectrum import SMALLEST_SPECTRUM

_SAMPLING_OPTIONS = ("sampler", "steps", "eta", "churn", "truncation")
_GIB = 1024**3
# Memory of a guided step over that of a plain one; measured at 256 pixels.
_KEPT_FOR_GRADIENT = 5


def check_config(config: Config) -> None:
    """Raise UserError naming the first settings that cannot work together."""
    size = training_size(config)
    if config.train.eval_every and min(size) < SMALLEST_SPECTRUM:
        raise UserError(f"train.eval_every: images of {format_size(size)} are too small for a spectrum")
    batch_sizes(config)
    method_of(config).check()


def config_warnings(config: Config) -> list[str]:
    """Return a line about each setting that is adjusted."""
    return grid_warnings(config.model.grid, method_of(config).top_grid())


def check_latent(overrides: Sequence[str]) -> None:
    """Raise UserError naming the first override that is not a setting of the latent model."""
    for override in overrides:
        if not override.startswith("latent."):
            raise UserError(f"{override}: only settings of latent. can be given here; the run has the others")


def sampling_options(config: Config, *, size: Size | None = None, deblur: bool = False, **given: Any) -> dict[str, Any]:
    """The options of the run's kind (`Method.options`), and upscale: those given and not None, else the run's.

    size: of the images. Raises UserError naming the first one that cannot work with this run.
    """
    method, sample = method_of(config), config.sample
    for name in _SAMPLING_OPTIONS:
        if given.get(name) is not None and name not in method.options:
            kind, have = config.method, ", ".join(f"--{option}" for option in method.options)
            raise UserError(f"--{name} {given[name]}: a run of method {kind} has only {have}")
    options = {
        name: getattr(sample, name) if given.get(name) is None else given[name] for name in (*method.options, "upscale")
    }
    if options["sampler"] not in method.samplers:
        raise UserError(f"--sampler {options['sampler']}: this run samples with {', '.join(method.samplers)}")
    _check_steps(config, options["steps"])
    method.check_options(options, deblur)
    if options["upscale"] not in UPSCALES:
        raise UserError(f"--upscale {options['upscale']}: choose one of {', '.join(UPSCALES)}")
    base = training_size(config)
    if options["upscale"] != "none" and size is not None and size[0] * base[1] != size[1] * base[0]:
        raise UserError(
            f"--res {format_size(size)}: with --upscale the shape is that of the training size, {format_size(base)}"
        )
    return options


def _check_steps(config: Config, steps: int) -> None:
    most = method_of(config).most_steps
    if most is not None and not 1 <= steps <= most:
        raise UserError(f"--steps {steps}: want 1 to {most}, the run's diffusion.steps")
    if steps < 1:
        raise UserError(f"--steps {steps}: want at least 1")


def check_guidance(config: Config, steps: int, weight: float, variety: float = 0.0) -> None:
    """Raise UserError naming the first option of guided sampling that cannot work with this run."""
    _check_steps(config, steps)
    if not 0 <= weight <= 2:
        raise UserError(f"--weight {weight:g}: want 0 (no guidance) to 2; 1 follows what is known most closely")
    if not 0 <= variety <= 1:
        raise UserError(f"--variety {variety:g}: want 0 (the latent of the visible pixels) to 1 (any latent)")


def check_enlarging(config: Config, small: Size, res: str, steps: int, weight: float) -> Size:
    """The size that `--res` means for a picture of size `small`: one number is its longer side.

    Raises UserError when it is smaller than the picture, or another option cannot work.
    """
    check_guidance(config, steps, weight)
    size = read_size("--res", res)
    if "x" not in res.lower():
        longer = max(small)
        size = round(size[0] * small[0] / longer), round(size[0] * small[1] / longer)
    if size[0] < small[0] or size[1] < small[1]:
        raise UserError(f"--res {res}: {format_size(size)} is smaller than the picture, {format_size(small)}")
    return size


def default_batch(config: Config, size: Size, *, guided: bool = False) -> int:
    """Return how many images of a size to sample at once: about 2 GiB of features.

    guided: the network is differentiated.
    """
    kept = _KEPT_FOR_GRADIENT if guided else 1
    return max(1, min(64, 2 * _GIB // (kept * method_of(config).feature_bytes(size))))


def tile_rows(config: Config, size: Size, tile: str | None = None) -> int | None:
    """Return the rows of pixels that `tile` sends through the network at a time; None for all at once.

    tile: a number, "auto" for the most efficient one, "off", or None: "auto" where an image's features at once would
    take more than 3 GiB and the network can. Raises UserError for anything else.
    """
    method = method_of(config)
    rows = method.strip_rows(size)
    if tile == "off" or (tile is None and (rows is None or method.feature_bytes(size) <= 3 * _GIB)):
        return None
    if rows is None:
        raise UserError(f"--tile {tile}: a run of method {config.method} takes all rows of an image at once")
    if tile is not None and tile != "auto":
        if not tile.isdigit() or int(tile) < 1:
            raise UserError(f"--tile {tile}: want a number of rows from 1 on, auto or off")
        return int(tile)
    return rows

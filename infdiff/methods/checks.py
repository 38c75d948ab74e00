"""Relations between settings; what one setting can be stands in `config`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from infdiff.config.settings import Config, InfinityDiffConfig
from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError, UserError
from infdiff.methods.grid_networks import grid_warnings
from infdiff.methods.method import method_of
from infdiff.methods.sampling import SamplingOptions, deblur_of
from infdiff.methods.sizes import batch_sizes, images_a_step, training_size
from infdiff.metrics.spectrum import SMALLEST_SPECTRUM
from infdiff.ops.gpu import launch
from infdiff.ops.routing import ENLARGED_BACKEND, UNKNOWN_SCALE


def check_config(config: Config) -> None:
    """Raise UserError naming the first settings that cannot work together."""
    size = training_size(config)
    if config.train.eval_every and min(size) < SMALLEST_SPECTRUM:
        raise UserError(f"train.eval_every: images of {format_size(size)} are too small for a spectrum")
    batch_sizes(config)
    method = method_of(config)
    method.check()
    try:
        deblur_of(method, config.sample.deblur)
    except OptionError as error:
        raise UserError(f"sample.{error}") from error


def check_processes(config: Config, count: int) -> None:
    """Raise UserError for a batch of images that `count` processes cannot share evenly."""
    for size, number in batch_sizes(config).items():
        check_share(f"the batch size at {format_size(size)} pixels", number, count)


def check_share(name: str, number: int, count: int) -> None:
    """Raise UserError naming a batch size that `count` processes cannot share evenly."""
    if number % count:
        raise UserError(f"{name}: {count} processes cannot share {number} evenly: choose a multiple of {count}")


def config_warnings(config: Config) -> list[str]:
    """Return a line about each setting that is adjusted, or that takes much time."""
    return grid_warnings(config.model.grid, method_of(config).top_grid()) + _evaluation_warnings(config)


def _evaluation_warnings(config: Config) -> list[str]:
    train, method = config.train, method_of(config)
    evaluated = train.eval_images * SamplingOptions.of(method).evaluations(method)
    # Without gradients an image takes a third of the time.
    steps = evaluated / (3 * images_a_step(config))
    if not train.eval_every or 10 * steps <= train.eval_every:
        return []
    return [
        f"train.eval_every: {train.eval_images} samples take about as long as {steps:.0f} steps, more than a tenth of "
        f"{train.eval_every}: give it {math.ceil(10 * steps)} or more, or lower train.eval_images or sample.steps"
    ]


def density_note(config: Config) -> str | None:
    """Return a line for a training on part of the pixels alone, whose network is sampled on all of them."""
    if config.subsample == 1:
        return None
    rate = f"{config.subsample:g}"
    return (
        f"trained on 1/{rate} of the pixels alone, as published; samples have all of them, and with "
        f"--subsample 1:1,{rate}:1 every second step would, too (docs/quality.md)"
    )


def backend_note(config: Config, sizes: Iterable[Size]) -> str | None:
    """Return a line for a network that asks for TorchSparse and is used at sizes whose kernels that does not know."""
    if not isinstance(config, InfinityDiffConfig) or config.model.backend != "torchsparse":
        return None
    base = training_size(config)
    others = [format_size(size) for size in sizes if size != base]
    if not others:
        return None
    instead = ENLARGED_BACKEND[config.model.depthwise]
    return (
        f"model.backend: torchsparse: {UNKNOWN_SCALE}; at {', '.join(others)} pixels, where data.size is "
        f"{format_size(base)}, model.backend: {instead} takes its place"
    )


def kernels_note(device: torch.device) -> str | None:
    """Return a line for a CUDA device on which the kernels do not run."""
    why = launch.why_closed() if device.type == "cuda" else None
    return None if why is None else f"CUDA kernels do not run: {why}; plain PyTorch takes their place, more slowly"


def check_latent(overrides: Sequence[str]) -> None:
    """Raise UserError naming the first override that is not a setting of the latent model."""
    for override in overrides:
        if not override.startswith("latent."):
            raise UserError(f"{override}: only settings of latent. can be given here; the run has the others")

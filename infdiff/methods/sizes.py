"""The sizes that a configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TypeVar

from infdiff.config.settings import Config, EDMConfig, InfinityDiffConfig
from infdiff.coordinates import Size, format_size, parse_size
from infdiff.errors import UserError
from infdiff.seeding import draw_part

_Value = TypeVar("_Value")

# From this many pixels for a point, and in an image, up: see `reads_points`.
_SPARSE_RATE = 32
_LARGE = 512 * 512


def training_size(config: Config) -> Size:
    """The base resolution (H, W)."""
    return read_size("data.size", config.data.size)


def grid_size(config: InfinityDiffConfig) -> Size:
    """Size of the inner grid at the base resolution."""
    return read_size("model.grid_size", config.model.grid_size)


def resolutions(config: Config) -> dict[Size, float]:
    """Return what is trained on, with weights that sum to 1, none of them 0: `data.resolutions`, or data.size alone.

    Raises UserError for repeated sizes and all-zero weights.
    """
    weights = _by_size("data.resolutions", config.data.resolutions) or {training_size(config): 1.0}
    total = sum(weights.values())
    if total == 0:
        raise UserError("data.resolutions: all weights are 0: give one of the resolutions more")
    return {size: weight / total for size, weight in weights.items() if weight}


def upsampled_size(config: Config) -> Size | None:
    """Size R of DFU's fine-tuning; None where there is none."""
    if not isinstance(config, EDMConfig) or not config.finetune.size:
        return None
    return read_size("finetune.size", config.finetune.size)


def training_weights(config: Config) -> dict[Size, float]:
    """Return the weight of each size that steps are trained on: `resolutions`, and in fine-tuning the upsampled one."""
    weights, size = resolutions(config), upsampled_size(config)
    if size is None or not isinstance(config, EDMConfig):
        return weights
    # w_r = (1 - w_R) / n (DFU appendix C)
    each = (1 - config.finetune.weight) / len(weights)
    return {**dict.fromkeys(weights, each), size: config.finetune.weight}


def batch_sizes(config: Config) -> dict[Size, int]:
    """Return the batch size at each of `training_weights`. Raises UserError for a size that is no resolution."""
    given = _by_size("data.batch_sizes", config.data.batch_sizes)
    known = {**_by_size("data.resolutions", config.data.resolutions), **dict.fromkeys(training_weights(config))}
    for size in given:
        if size not in known:
            raise UserError(f"data.batch_sizes.{format_size(size)}: not one of data.resolutions")
    return {size: given.get(size, config.train.batch_size) for size in training_weights(config)}


def images_a_step(config: Config) -> float:
    """Return the mean number of images of a training step, each counted as its part of the training size's pixels."""
    base, counts = prod(training_size(config)), batch_sizes(config)
    parts = (weight * counts[size] * prod(size) / base for size, weight in training_weights(config).items())
    return config.train.accumulate * sum(parts)


def largest(sizes: Iterable[Size]) -> Size:
    """Return the size with the most pixels."""
    return max(sizes, key=lambda size: size[0] * size[1])


def point_count(config: Config, size: Size | None = None, rate: float | None = None) -> int:
    """Points of each image of a size at a rate, by default of the training size at the densest one trained on.

    Raises UserError when `train.subsample` leaves none.
    """
    size, subsample = size or training_size(config), rate or config.subsample
    count = round(size[0] * size[1] / subsample)
    if config.data.valid_pixels:
        count = min(count, fewest_valid(config, size))
    if count < 1:
        most = size[0] * size[1]
        raise UserError(f"train.subsample: {subsample:g} leaves no point of {most} pixels: want at most {most}")
    return count


def fewest_valid(config: Config, size: Size) -> int:
    """The fewest valid pixels of an image of a set with missing ones. Raises UserError for a size not trained on."""
    known = _by_size("data.valid_pixels", config.data.valid_pixels)
    if size not in known:
        sizes = ", ".join(map(format_size, known))
        raise UserError(f"{format_size(size)} pixels: how many of them are valid is known at {sizes} alone")
    return known[size]


def drawn_point_count(config: Config, size: Size, seed: int) -> int:
    """Points drawn from each image of a size, at one of the rates, in the step whose generator has that seed.

    Nothing waits for the generator's device, and a resumed run draws the same.
    """
    return point_count(config, size, drawn_rate(config, seed))


def drawn_rate(config: Config, seed: int) -> float:
    """Rate of points in the step whose generator has this seed."""
    rates = config.subsample_rates
    return list(rates)[draw_part(list(rates.values()), seed, "subsample")]


def reads_points(config: Config, size: Size, rate: float) -> bool:
    """Return True if a step on images of a size at a rate makes noise and T x_0 at its points alone.

    The one rule: where there are many pixels for each point, of large images. Elsewhere noise and T x_0 are made of all
    pixels and read at the points: at rates like the published ones that takes less time. White noise as a target has
    no value at a place that does not depend on the pixels, and is always made of all.
    """
    if not isinstance(config, InfinityDiffConfig) or config.diffusion.target == "noise":
        return False
    return rate >= _SPARSE_RATE and prod(size) >= _LARGE


def describe_points(config: Config) -> str:
    """Describe in words how many points of how large images are trained on."""
    counts = {size: _counts(config, size) for size in training_weights(config)}
    if len(counts) == 1:
        return f"{next(iter(counts.values()))} points of each"
    return f"{', '.join(counts.values())} points of them at {', '.join(map(format_size, counts))}"


def _counts(config: Config, size: Size) -> str:
    """The numbers of points of an image of a size, one for each rate: "1024", or "4096 or 1024"."""
    return " or ".join(str(point_count(config, size, rate)) for rate in config.subsample_rates)


def read_size(key: str, value: int | str) -> Size:
    """Return what `parse_size` reads, and name the key or option in its error."""
    try:
        return parse_size(value)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error


def _by_size(key: str, values: Mapping[str, _Value]) -> dict[Size, _Value]:
    out: dict[Size, _Value] = {}
    for text, value in values.items():
        size = read_size(key, text)
        if size in out:
            raise UserError(f"{key}: {format_size(size)} is there twice")
        out[size] = value
    return out

"""The sizes that a configuration names."""

from __future__ import annotations

from infdiff.config import Config
from infdiff.errors import UserError
from infdiff.grid import Size, parse_size


def training_size(config: Config) -> Size:
    """The base resolution (H, W)."""
    return read_size("data.size", config.data.size)


def grid_size(config: Config) -> Size:
    """Of the grid inside a network on points, for images of the base resolution."""
    return read_size("model.grid.size", config.model.grid.size)


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


def read_size(key: str, value: int | str) -> Size:
    """`parse_size`, with the key or option named in the error."""
    try:
        return parse_size(value)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error

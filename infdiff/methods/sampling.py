"""Sampling options: read, checked and filled in once, for every program that samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypedDict, Unpack

import torch

from infdiff.config.settings import UPSCALES, Config, InfinityDiffConfig
from infdiff.coordinates import Size, format_size, parse_size
from infdiff.diffusion.samplers import Sampler
from infdiff.errors import OptionError
from infdiff.memory import free_memory
from infdiff.methods.sizes import training_size

_CPU = torch.device("cpu")
_GIB = 1024**3
# Memory of a guided step over that of a plain one; measured at 256 pixels.
_KEPT_FOR_GRADIENT = 5
# Memory of a step in windows, for all of which the geometry is kept, over that of the image at once.
_KEPT_FOR_WINDOWS = 5
# Bytes for each pixel of an image that is resized: two copies of three channels, and a transform of one.
_KEPT_FOR_RESIZING = 64


class SamplingMethod(Protocol):
    """The part of a method that sampling options depend on.

    options: the names of the sampling options that it has, as in the section `sample` of its configuration.
    """

    @property
    def config(self) -> Config: ...

    @property
    def samplers(self) -> Mapping[str, Sampler]: ...

    @property
    def options(self) -> tuple[str, ...]: ...

    @property
    def deblurs(self) -> tuple[str, ...]:
        """Ways to undo the mollifier, the best first; "none" is always among them."""

    @property
    def most_steps(self) -> int | None:
        """Largest number of sampling steps; None for no limit."""

    def check_options(self, options: SamplingOptions) -> None:
        """Raise OptionError for the first option out of range, and UserError for one that the run cannot follow."""

    def tile_rows(self, size: Size, device: torch.device) -> int | None:
        """Rows of an image in the most efficient tile on a device; None for a network that takes all rows at once."""

    def feature_bytes(self, size: Size) -> int:
        """Estimate the memory that the features of one image of a size take in sampling."""


class Given(TypedDict, total=False):
    """Options as callers pass them; without one, or with None, the run's own holds."""

    sampler: str | None
    steps: int | None
    eta: float | None
    variance: str | None
    churn: float | None
    truncation: float | None
    upscale: str | None
    deblur: str | None
    tile: str | int | None


@dataclass(frozen=True)
class SamplingOptions:
    """Choices for sampling images. An option that a method does not have keeps its default, which has no effect.

    sampler: a name in the method's registry; steps: of the sampler. eta: noise of ddim; variance: of ddpm's steps;
    churn: noise of heun.
    truncation: scale of the latents' spread. upscale: "bilinear" samples at the training size and resizes; "cosine"
    reads sizes beyond the training size off its cosine series; "windows" then draws detail in windows of it. deblur:
    "network", "wiener" or "none" (T x_0). tile: rows of pixels that go through the network at a time; None for all.
    """

    sampler: str
    steps: int
    eta: float = 0.0
    variance: str = "posterior"
    churn: float = 0.0
    truncation: float = 1.0
    upscale: str = "none"
    deblur: str = "none"
    tile: int | None = None

    @classmethod
    def of(
        cls,
        method: SamplingMethod,
        size: Size | None = None,
        device: torch.device = _CPU,
        **given: Unpack[Given],
    ) -> SamplingOptions:
        """The run's options with those that are given and not None in their place, for images of a size on a device.

        Raises OptionError naming the first one that is unknown, has no effect with this run, or cannot work.
        """
        asked = {name: value for name, value in given.items() if value is not None}
        _check_names(method, asked)
        sample = method.config.sample
        options = {name: getattr(sample, name) for name in (*method.options, "upscale", "deblur")}
        tile = asked.pop("tile", None)
        options |= asked
        options["deblur"] = deblur_of(method, options["deblur"])
        chosen = cls(**options)
        _check_sampler(method, chosen, asked)
        check_steps(method, chosen.steps)
        method.check_options(chosen)
        _check_upscale(method.config, chosen.upscale, size)
        base = training_size(method.config)
        sampled = chosen.sampled_at(size or base, base)
        rows = tile_rows(method, sampled, None if tile is None else str(tile), device)
        return replace(chosen, tile=rows)

    def sampled_at(self, size: Size, base: Size) -> Size:
        """The size that the network sees for images of a size, with the training size `base`."""
        if self.upscale == "none":
            return size
        return base if self.upscale == "bilinear" else (min(size[0], base[0]), min(size[1], base[1]))

    def evaluations(self, method: SamplingMethod, size: Size | None = None) -> int:
        """Number of times that sampling one batch of a size evaluates the network; by default the training size."""
        base = training_size(method.config)
        again = (
            self.steps if self.upscale == "windows" and size not in (None, self.sampled_at(size or base, base)) else 0
        )
        return method.samplers[self.sampler].evaluations(self.steps) + again

    def record(self, method: SamplingMethod) -> dict[str, Any]:
        """The options that decide how an image looks, without those that the method does not have."""
        return {name: getattr(self, name) for name in (*method.options, "upscale", "deblur")}


def deblur_of(method: SamplingMethod, asked: str) -> str:
    """Return one of the method's ways to undo the blur: "auto" is the best of them.

    Raises OptionError for one that it does not have.
    """
    ways = method.deblurs
    if asked == "auto":
        return ways[0]
    if asked not in ways:
        reason = {
            "network": "the run's network has no second output (model.sharp), which training has to begin with",
            "wiener": "the run was trained with white noise, so there is no mollifier to undo",
        }.get(asked, "unknown")
        raise OptionError("deblur", asked, f"{reason}; want auto, {' or '.join(ways)}")
    return asked


def check_steps(method: SamplingMethod, steps: int) -> None:
    """Raise OptionError when a run cannot be sampled in this number of steps."""
    most = method.most_steps
    if most is not None and not 1 <= steps <= most:
        raise OptionError("steps", steps, f"want 1 to {most}, the run's diffusion.steps")
    if steps < 1:
        raise OptionError("steps", steps, "want at least 1")


def check_guidance(weight: float, variety: float = 0.0) -> None:
    """Raise OptionError naming the first option of guided sampling that cannot work."""
    if not 0 <= weight <= 2:
        raise OptionError("weight", f"{weight:g}", "want 0 (no guidance) to 2; 1 follows what is known most closely")
    if not 0 <= variety <= 1:
        raise OptionError("variety", f"{variety:g}", "want 0 (the latent of the visible pixels) to 1 (any latent)")


def check_tile(method: str, guidance: str, tile: str | int | None) -> None:
    """Raise OptionError for tiles that are asked for where all rows go through the network at once."""
    if tile is None or method == "encode":
        return
    if method != "guided":
        raise OptionError("tile", tile, f"goes with method guided, not with {method}")
    if guidance == "gradient":
        raise OptionError("tile", tile, "goes with guidance projection: gradients take all rows at once")


def guidance_weight(method: str, asked: float | None, guidance: str | None = None) -> float:
    """Return the weight of guidance that is asked for, or 1.

    Raises OptionError when it cannot work, or `method` is not the guided one. guidance: the kind, if asked for.
    """
    if guidance is not None and method != "guided":
        raise OptionError("guidance", guidance, f"goes with method guided, not with {method}")
    if asked is not None and method != "guided":
        raise OptionError("weight", f"{asked:g}", f"goes with method guided, not with {method}")
    weight = 1.0 if asked is None else asked
    check_guidance(weight)
    return weight


def check_enlarging(small: Size, res: str) -> Size:
    """Return the size that `res` means for an image of size `small`: one number is its longer side.

    Raises OptionError when it is smaller than the image.
    """
    try:
        size = parse_size(res)
    except ValueError as error:
        raise OptionError("res", res, str(error).partition(": ")[2]) from error
    if "x" not in res.lower():
        longer = max(small)
        size = round(size[0] * small[0] / longer), round(size[0] * small[1] / longer)
    if size[0] < small[0] or size[1] < small[1]:
        raise OptionError("res", res, f"{format_size(size)} is smaller than the image, {format_size(small)}")
    return size


def default_batch(
    method: SamplingMethod, size: Size, options: SamplingOptions | None = None, *, guided: bool = False
) -> int:
    """Number of images of a size to sample at once: about 2 GiB of features, or of pixels where these are enlarged.

    options: those that they are sampled with, if not at their own size. guided: the network is differentiated.
    """
    sampled = size if options is None else options.sampled_at(size, training_size(method.config))
    kept = _KEPT_FOR_GRADIENT if guided else 1
    if options is not None and options.upscale == "windows" and sampled != size:
        sampled, kept = size, _KEPT_FOR_WINDOWS
    needed = max(kept * method.feature_bytes(sampled), _KEPT_FOR_RESIZING * size[0] * size[1])
    return max(1, min(64, 2 * _GIB // needed))


def tile_rows(method: SamplingMethod, size: Size, tile: str | None = None, device: torch.device = _CPU) -> int | None:
    """Rows of pixels that go through the network at a time; None for all at once.

    tile: a number, "auto" for the most efficient one, "off", or None: "auto" where an image's features at once would
    take more than 3 GiB, on CUDA more than half of the memory that is free, and the network can. Raises OptionError for
    anything else.
    """
    rows, free = method.tile_rows(size, device), free_memory(device)
    most = 3 * _GIB if free is None else free // 2
    if tile == "off" or (tile is None and (rows is None or method.feature_bytes(size) <= most)):
        return None
    if rows is None:
        kind = method.config.model.grid.kind
        raise OptionError(
            "tile", tile, f"a run of method {method.config.method} with a network of kind {kind} takes all rows at once"
        )
    if tile is None or tile == "auto":
        return rows
    if not tile.isdecimal() or int(tile) < 1:
        raise OptionError("tile", tile, "want a number of rows from 1 on, auto or off")
    return int(tile)


def _check_names(method: SamplingMethod, asked: Mapping[str, object]) -> None:
    known = {field.name for field in fields(SamplingOptions)}
    foreign = known - {*method.options, "upscale", "deblur", "tile"}
    has = ", ".join([*method.options, "upscale", "deblur", "tile"])
    for name, value in asked.items():
        if name not in known:
            raise OptionError(name, value, f"unknown option: want {has}")
        if name in foreign:
            raise OptionError(name, value, f"a run of method {method.config.method} has only {has}")


def _check_sampler(method: SamplingMethod, options: SamplingOptions, asked: Mapping[str, object]) -> None:
    if options.sampler not in method.samplers:
        raise OptionError(
            "sampler",
            options.sampler,
            f"a run of method {method.config.method} samples with {', '.join(method.samplers)}",
        )
    for name, sampler in method.samplers.items():
        for option in sampler.options:
            if option in asked and option not in method.samplers[options.sampler].options:
                raise OptionError(option, asked[option], f"goes with {name}, not with {options.sampler}")


def _check_upscale(config: Config, upscale: str, size: Size | None) -> None:
    if upscale not in UPSCALES:
        raise OptionError("upscale", upscale, f"choose one of {', '.join(UPSCALES)}")
    if upscale == "windows" and not (isinstance(config, InfinityDiffConfig) and config.model.z_dim):
        raise OptionError("upscale", upscale, "wants a run of method infinity_diff with an encoder (model.z_dim)")
    base = training_size(config)
    if upscale == "bilinear" and size is not None and size[0] * base[1] != size[1] * base[0]:
        shape = format_size(size)
        raise OptionError("upscale", upscale, f"{shape} has not the shape of the training size, {format_size(base)}")

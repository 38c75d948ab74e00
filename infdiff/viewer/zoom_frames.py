"""Frames of a continuous zoom into one sample: between two levels of its pyramid the coarser fades into the finer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from infdiff.coordinates import LARGEST_SIDE, Size
from infdiff.errors import OptionError
from infdiff.pipelines.zoom import Region
from infdiff.viewer.zoomed import Report, ZoomedImage


@dataclass(frozen=True)
class Zoom:
    """A zoom from the complete image with `least` pixels along its longer side to a part of it with `most` of them.

    Frames have the size of the former. at: the place (x, y) that stays where it is, in parts of width and height.
    """

    least: int
    most: int
    at: tuple[float, float] = (0.5, 0.5)

    @classmethod
    def of(cls, sizes: str, at: str | None) -> Zoom:
        """Read "64:2048" and "0.5,0.5". Raises OptionError naming what cannot be read, or is out of range."""
        parts = sizes.split(":")
        if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
            raise OptionError("zoom", sizes, "want two sizes, as in 64:2048")
        least, most = int(parts[0]), int(parts[1])
        if not 1 <= least < most <= LARGEST_SIDE:
            raise OptionError("zoom", sizes, f"want a size and a larger one, at most {LARGEST_SIDE}")
        if at is None:
            return cls(least, most)
        try:
            x, y = map(float, at.split(","))
        except ValueError as error:
            raise OptionError("at", at, "want X,Y, as in 0.5,0.5") from error
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise OptionError("at", at, "want parts of the width and the height, from 0 to 1")
        return cls(least, most, (x, y))

    def frame(self, size: Size) -> Size:
        """Size of a frame of an image of this size: the same proportions, with `least` pixels along the longer side."""
        return _scaled(size, self.least)

    def depth(self, size: Size) -> Size:
        """Size of such an image at the end of the zoom."""
        return _scaled(size, self.most)

    def part(self, done: float) -> float:
        """Part of the width that is in view when this part of the time is over: it shrinks by a rate."""
        return (self.least / self.most) ** done


def _scaled(size: Size, longer: int) -> Size:
    return max(1, round(longer * size[0] / max(size))), max(1, round(longer * size[1] / max(size)))


def frames(image: ZoomedImage, zoom: Zoom, count: int, report: Report) -> Iterator[Image.Image]:
    """Frames 0..count-1 of a zoom; tiles in view are drawn when they are first needed. report: as `ZoomedImage.tile`.

    The first frame is the complete image at its level, reduced where there is none of that size, and the last one a
    part of the level of `zoom.most` pixels.
    """
    seen: dict[int, _Seen] = {}
    for number in range(count):
        part = zoom.part(number / (count - 1))
        longer = zoom.least / part
        fine = _level_for(image, longer)
        coarser = longer / max(image.pyramid.size_of(fine - 1)) if fine else math.inf
        # Half of the way to the finer level it alone is shown, made smaller: fading all the way would show less detail.
        weight = min(1.0, 2 * math.log2(coarser)) if coarser > 1 else 0.0
        levels = [level for level, shown in ((fine - 1, weight < 1), (fine, weight > 0)) if shown]
        for level in [*seen]:
            if level < levels[0]:
                del seen[level]
        for level in levels:
            if level not in seen:
                seen[level] = _Seen.of(image, level, zoom, part, report)
        views = [seen[level].view(zoom, part) for level in levels]
        yield views[0] if len(views) == 1 else Image.blend(views[0], views[1], weight)


def _level_for(image: ZoomedImage, longer: float) -> int:
    """The coarsest level that has this many pixels along the longer side."""
    return next(
        level for level in range(image.pyramid.levels + 1) if max(image.pyramid.size_of(level)) >= longer * (1 - 1e-9)
    )


@dataclass(frozen=True)
class _Seen:
    """The pixels of a level that were in view when it was first needed, which is all of it that ever is."""

    pixels: Image.Image
    region: Region
    level_size: Size
    image_size: Size

    @classmethod
    def of(cls, image: ZoomedImage, level: int, zoom: Zoom, part: float, report: Report) -> _Seen:
        height, width = size = image.pyramid.size_of(level)
        left, top, right, bottom = _box(zoom, part, size)
        region = Region(
            math.floor(top + _TOLERANCE),
            math.floor(left + _TOLERANCE),
            min(math.ceil(bottom - _TOLERANCE), height),
            min(math.ceil(right - _TOLERANCE), width),
        )
        pixels = image.region(level, region, report)
        return cls(Image.fromarray(pixels.permute(1, 2, 0).numpy()), region, size, image.pyramid.size)

    def view(self, zoom: Zoom, part: float) -> Image.Image:
        """The part in view, at the size of a frame."""
        left, top, right, bottom = _box(zoom, part, self.level_size)
        x, y, (height, width) = self.region.left, self.region.top, self.region.size
        box = (max(left - x, 0), max(top - y, 0), min(right - x, width), min(bottom - y, height))
        frame = zoom.frame(self.image_size)
        return self.pixels.resize((frame[1], frame[0]), Image.Resampling.BICUBIC, box=box)


# Pixels by which a place may be off an edge between pixels, by rounding.
_TOLERANCE = 1e-6


def _box(zoom: Zoom, part: float, size: Size) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is in view, in pixels of a level."""
    (x, y), (height, width) = zoom.at, size
    left, top = x * (1 - part) * width, y * (1 - part) * height
    return _whole(left), _whole(top), _whole(left + part * width), _whole(top + part * height)


def _whole(place: float) -> float:
    nearest = round(place)
    return float(nearest) if abs(place - nearest) < _TOLERANCE else place

"""Time and memory of a zoom, as a person makes it: in from the first tile to the largest level, and along it."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from infdiff.coordinates import format_size
from infdiff.images.pixels import from_uint8
from infdiff.metrics.similarity import psnr
from infdiff.pipelines.super_resolve import reduce
from infdiff.pipelines.zoom import Region
from infdiff.viewer.zoomed import Drawing, Painter, ZoomedImage


def measure(painter: Painter, count: int, say: Callable[[str], None]) -> None:
    """Draw tiles in a folder that is removed, and say seconds, processor seconds and memory in one line each."""
    with tempfile.TemporaryDirectory() as folder:
        image = ZoomedImage(painter, 0, Path(folder))
        wall, processor = time.perf_counter(), time.process_time()
        image.tile(image.first_level, 0, 0, _ignore)
        first = time.perf_counter() - wall, time.process_time() - processor
        seconds = _tiles(image, count)
        agreement = _agreement(image)
    threads = torch.get_num_threads()
    say(f"{format_size(painter.size)} pixels in tiles of {painter.tile}, {painter.trained.device}, {threads} threads")
    say(f"first tile: {first[0]:.2f} s ({first[1]:.2f} s of processor)")
    wall_seconds, processor_seconds = zip(*seconds, strict=True)
    say(
        f"{len(seconds)} further tiles: median {statistics.median(wall_seconds):.2f} s, slowest "
        f"{max(wall_seconds):.2f} s (median {statistics.median(processor_seconds):.2f} s of processor)"
    )
    say(f"averaged down, a level has {agreement:.1f} dB from the coarser one")
    say(f"most memory of this process: {_most_memory() / 2**30:.2f} GiB")


def _tiles(image: ZoomedImage, count: int) -> list[tuple[float, float]]:
    """Wall and processor seconds of each of `count` tiles, drawn one by one: first inwards, then along the last level.

    Each is timed alone: what it refines is there.
    """
    seconds: list[tuple[float, float]] = []

    def draw(level: int, row: int, column: int) -> None:
        side, size = image.pyramid.tile, image.pyramid.size_of(level)
        if len(seconds) == count or image.pyramid.path(level, row, column).exists():
            return
        if level > image.first_level:
            around = image.painter.margin
            for y in {max(row * side - around, 0), min(row * side + side + around, size[0]) - 1}:
                for x in {max(column * side - around, 0), min(column * side + side + around, size[1]) - 1}:
                    draw(level - 1, y // 2 // side, x // 2 // side)
        wall, processor = time.perf_counter(), time.process_time()
        image.tile(level, row, column, _ignore)
        seconds.append((time.perf_counter() - wall, time.process_time() - processor))

    rows, columns = image.pyramid.tiles_of(image.pyramid.levels)
    for number in range(rows * columns):
        draw(image.pyramid.levels, number // columns, number % columns)
        if len(seconds) == count:
            break
    return seconds


def _agreement(image: ZoomedImage) -> float:
    """PSNR of the first tile of the second level, averaged down, from the first level."""
    level, side = image.first_level + 1, image.pyramid.tile
    if level > image.pyramid.levels:
        return float("inf")
    height, width = (min(side, n) for n in image.pyramid.size_of(level))
    fine = from_uint8(image.region(level, Region(0, 0, height, width), _ignore))[None]
    coarse = from_uint8(image.region(level - 1, Region(0, 0, height // 2, width // 2), _ignore))[None]
    return float(psnr(reduce(fine, (height // 2, width // 2)), coarse, peak=2))


def _most_memory() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _ignore(drawing: Drawing) -> None:
    """No progress is shown."""

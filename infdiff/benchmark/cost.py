"""Cost of training and sampling steps, as records and as a text table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infdiff.benchmark.timing import Timing
from infdiff.coordinates import Size, format_size
from infdiff.tables import text_table


@dataclass(frozen=True)
class Setting:
    """Sizes of a step: one pixel in `subsample` of images of `size`, through a grid of `grid` cells."""

    size: Size
    grid: Size
    subsample: float
    batch: int

    def describe(self) -> str:
        """Return the setting as text."""
        return f"{self.batch} images of {format_size(self.size)}, grid {format_size(self.grid)}, 1/{self.subsample:g}"

    def record(self) -> dict[str, Any]:
        """Return the setting as a record for JSON."""
        sizes = {"size": format_size(self.size), "grid": format_size(self.grid)}
        return sizes | {"subsample": self.subsample, "batch": self.batch}


@dataclass(frozen=True)
class StepCost:
    """Cost of one step of `images` images; peak_bytes as measured by `PeakMemory`, None if unknown."""

    setting: Setting
    timing: Timing
    flop: int
    peak_bytes: int | None
    parameters: int
    images: int
    steps_per_image: int = 1

    @property
    def images_per_second(self) -> float:
        """Finished images a second; sampling takes many steps for one."""
        return self.images / (self.timing.median / 1000 * self.steps_per_image)

    def record(self, rate: float) -> dict[str, Any]:
        """Return the cost as a record for JSON. rate: FLOP a second of the device in matrix products."""
        return self.setting.record() | {
            "median_ms": self.timing.median,
            "minimum_ms": self.timing.minimum,
            "spread_ms": self.timing.spread,
            "repeats": self.timing.repeats,
            "steps_per_image": self.steps_per_image,
            "images_per_second": self.images_per_second,
            "flop": self.flop,
            "flop_per_image": self.flop / self.images,
            "share_of_matrix_rate": self.flop / (self.timing.median / 1000) / rate,
            "peak_bytes": self.peak_bytes,
            "parameters": self.parameters,
        }


def costs_as_text(costs: Sequence[StepCost], rate: float) -> str:
    """Return a table with a row for each cost."""
    return text_table([_cells(cost.record(rate)) for cost in costs])


def _cells(record: dict[str, Any]) -> dict[str, str]:
    peak = record["peak_bytes"]
    return {
        "size": record["size"],
        "grid": record["grid"],
        "rate": f"1/{record['subsample']:g}",
        "batch": str(record["batch"]),
        "ms a step": f"{record['median_ms']:.1f}",
        "spread": f"{record['spread_ms']:.1f}",
        "images/s": f"{record['images_per_second']:#.3g}",
        "GFLOP an image": f"{record['flop_per_image'] / 1e9:#.3g}",
        "of matrix rate": f"{record['share_of_matrix_rate']:.1%}",
        "peak MB": "unknown" if peak is None else f"{peak / 1e6:.0f}",
    }

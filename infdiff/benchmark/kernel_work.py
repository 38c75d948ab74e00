"""The work of a kernel at given shapes: how many warps run, and how often each of its loops turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Turns(NamedTuple):
    """The turns of a loop each time it is met. body: an instruction that one turn runs `each` times."""

    often: float
    body: str = ""
    each: int = 1


@dataclass(frozen=True)
class Work:
    """One kernel at certain shapes.

    warps: how many run. units: what the count is divided by: points, cells or pixels of the batch. loops: by the source
    line that a loop begins with. parts: the part of the turns in which a source line runs, where it is not all.
    at: tells it from other work of the same kernel.
    """

    source: str
    entry: str
    defines: dict[str, int]
    warps: float
    units: int
    loops: dict[str, Turns] | None  # None: they depend on more than a draw, and only the needs are told
    parts: dict[str, float] = field(default_factory=dict)
    at: str = ""

    @property
    def name(self) -> str:
        """The kernel, and what tells this work from other work of it."""
        return f"{self.entry}, {self.at}" if self.at else self.entry

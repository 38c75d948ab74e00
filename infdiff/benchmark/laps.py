"""How long each of many steps takes that follow one another, the first ones left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

from infdiff.benchmark.timing import Timing

# Steps that are not measured: the first ones choose algorithms, allocate and fill caches.
WARM_UP = 2
_FEWEST = 2
# Steps are not repeated for longer than this many seconds.
_LIMIT = 10.0


class Laps:
    """Marks, and the milliseconds between them. On CUDA the device's own, its waits for the host included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Where a step ends and the next one begins. Nothing waits for the device."""
        if self.device.type == "cuda":
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()
        else:
            self.seconds.append(time.perf_counter())

    def timing(self) -> Timing:
        """Of three marks or more."""
        if self.events:
            self.events[-1].synchronize()
        between = [before.elapsed_time(after) for before, after in pairwise(self.events)]
        return Timing.of(between or [(after - before) * 1000 for before, after in pairwise(self.seconds)])


def repeats(seconds: float, most: int) -> int:
    """How often a step is measured that takes so long: twice at least, `most` at most, less where that takes long."""
    return max(_FEWEST, min(most, int(_LIMIT / max(seconds, 1e-9))))


def time_steps(step: Callable[[], object], device: torch.device, most: int) -> Timing:
    """Of a step that is called again and again, after WARM_UP calls."""
    for _ in range(WARM_UP):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    laps = Laps(device)
    laps.mark()
    for _ in range(repeats(time.perf_counter() - started, most)):
        step()
        laps.mark()
    return laps.timing()

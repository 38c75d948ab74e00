"""What making images took, kept beside them: a call that finds them made still knows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.files import writing
from infdiff.memory import PeakMemory

_FILES = "cost-*.jsonl"


@dataclass(frozen=True)
class MadeCost:
    """Of images in a folder: device's seconds for each, the most megabytes at once (None: unknown), and on what."""

    seconds_per_image: float
    peak_mb: float | None
    device: str

    @classmethod
    def read(cls, folder: Path) -> MadeCost | None:
        """From what every process kept there; None where nothing was measured."""
        files = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob(_FILES))]
        records = [record for file in files for record in file]
        if not records:
            return None
        # The first batch of a process also loads and chooses algorithms.
        timed = [record for file in files for record in (file[1:] or file)]
        seconds = sum(r["seconds"] for r in timed) / sum(r["images"] for r in timed)
        peaks = [r["peak_mb"] for r in records if r["peak_mb"] is not None]
        return cls(seconds, max(peaks, default=None), ", ".join(sorted({r["device"] for r in records})))

    def record(self) -> dict[str, Any]:
        """In plain values, as a row of results has them."""
        return {"seconds_per_image": self.seconds_per_image, "peak_mb": self.peak_mb, "made_on": self.device}


def keeping_cost(
    make: Callable[[Sequence[int]], Tensor], folder: Path, *, rank: int, device: torch.device, weights: int
) -> Callable[[Sequence[int]], Tensor]:
    """`make`, which gives images on the CPU, with a line about each of its calls kept in `folder`.

    weights: bytes that are there before, and count. Raises UserError when the folder cannot be written.
    """
    memory = PeakMemory(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"

    def measured(numbers: Sequence[int]) -> Tensor:
        memory.reset()
        started = time.perf_counter()
        images = make(numbers)
        seconds, peak = time.perf_counter() - started, memory.bytes()
        record = {"images": len(numbers), "seconds": seconds, "device": name}
        record["peak_mb"] = None if peak is None else (peak + weights) / 1e6
        path = folder / _FILES.replace("*", str(rank))
        with writing(path), path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return images

    return measured

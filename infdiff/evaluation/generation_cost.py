"""Time and memory spent generating images, stored next to them so that a resumed evaluation can report it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.files import writing
from infdiff.memory import PeakMemory

_FILES = "cost-*.jsonl"
_KEYS = {"images", "seconds", "device", "peak_mb"}

# (B, 3, H, W) images by their numbers.
Make = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class GenerationCost:
    """Cost of the images of a folder: seconds of a device for each, peak memory (None: unknown), and the device."""

    seconds_per_image: float
    peak_mb: float | None
    device: str

    @classmethod
    def read(cls, folder: Path) -> GenerationCost | None:
        """Return the cost over all processes that wrote to the folder; None if nothing was measured."""
        files = [_records(path) for path in sorted(folder.glob(_FILES))]
        records = [record for file in files for record in file]
        if not records:
            return None
        # The first batch of a process also loads libraries and chooses algorithms.
        timed = [record for file in files for record in (file[1:] or file)]
        seconds = sum(r["seconds"] for r in timed) / sum(r["images"] for r in timed)
        peaks = [r["peak_mb"] for r in records if r["peak_mb"] is not None]
        return cls(seconds, max(peaks, default=None), ", ".join(sorted({r["device"] for r in records})))

    def record(self) -> dict[str, Any]:
        """Return the columns of a row of results."""
        return {"seconds_per_image": self.seconds_per_image, "peak_mb": self.peak_mb, "made_on": self.device}


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file: a kill may have cut off the last one, and a disk may damage any."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and record.keys() >= _KEYS:
                records.append(record)
    return records


def measured(
    make: Make,
    folder: Path,
    *,
    rank: int,
    device: torch.device,
    weights: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Make:
    """Wrap `make`, which returns images on the CPU, so that each call appends a record to a file in `folder`.

    weights: bytes that are allocated beforehand, and count. Raises UserError when the folder cannot be written.
    """
    memory = PeakMemory(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    path = folder / _FILES.replace("*", str(rank))

    def make_and_record(numbers: Sequence[int]) -> Tensor:
        memory.reset()
        started = clock()
        images = make(numbers)
        seconds, peak = clock() - started, memory.bytes()
        record = {"images": len(numbers), "seconds": seconds, "device": name}
        record["peak_mb"] = None if peak is None else (peak + weights) / 1e6
        with writing(path), path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return images

    return make_and_record

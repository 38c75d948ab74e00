"""Images a second that are prepared, and that training reads without a cache: from one file and from shards."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from infdiff.data.batches import batches
from infdiff.data.image_set import ImageSet
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import Source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.tables import text_table

_BATCH = 32
# Seconds for which images are read.
_READING = 3.0


@dataclass(frozen=True)
class DataRate:
    """Images a second of `prepare` or `read`, the median of `repeats`. shards: 0 for one file."""

    what: str
    shards: int
    workers: int
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, what: str, shards: int, workers: int, rates: Sequence[float]) -> DataRate:
        return cls(what, shards, workers, statistics.median(rates), min(rates), max(rates))


def measure_data(
    source: Source,
    recipe: Recipe,
    *,
    shards: Sequence[int],
    workers: Sequence[int],
    repeat: int,
    on_case: Callable[[], object] = lambda: None,
    reading: float = _READING,
) -> list[DataRate]:
    """Prepare a source into a folder that is deleted again, and read what was prepared, with each number of workers.

    Preparing includes the start of the processes; reading begins with the second batch. Cases take turns, so that other
    work on the machine slows all of them down alike. Raises UserError for a source of which no image can be read.
    """
    found: dict[tuple[str, int, int], list[float]] = {
        (what, parts, count): [] for what in ("prepare", "read") for parts in shards for count in workers
    }
    with TemporaryDirectory() as folder:
        for _ in range(repeat):
            for what, parts, count in found:
                out = Path(folder) / f"{parts}.lmdb"
                if what == "read":
                    rate = _reading_rate(ImageStore(out), count, reading)
                else:
                    with _seconds() as seconds:
                        written = prepare(source, out, recipe, shards=parts, workers=count, progress=False).written
                    rate = written / seconds[0]
                found[what, parts, count].append(rate)
                on_case()
    return [DataRate.of(*case, rates) for case, rates in found.items()]


def _reading_rate(store: ImageStore, workers: int, reading: float) -> float:
    """Images a second of training batches, read for this many seconds or a little longer."""
    size = store.header.size
    if size is None:
        raise UserError("images of native sizes are not read at one size: give --size")
    images = ImageSet(store, list(range(len(store))), size)
    given = batches(images, _BATCH, seed=0, position=0, workers=workers, device=torch.device("cpu"))
    next(given)
    count = 0
    with _seconds() as seconds:
        end = time.perf_counter() + reading
        for batch in given:
            count += len(batch)
            if time.perf_counter() >= end:
                break
    given.close()  # type: ignore[attr-defined]
    return count / seconds[0]


@contextmanager
def _seconds() -> Iterator[list[float]]:
    found: list[float] = []
    started = time.perf_counter()
    yield found
    found.append(time.perf_counter() - started)


def as_text(rates: Sequence[DataRate]) -> str:
    """A table of images a second, a column for each number of workers."""
    rows = []
    for (what, shards), group in itertools.groupby(rates, key=lambda rate: (rate.what, rate.shards)):
        row = {"what": what, "shards": str(shards or "one file")}
        for rate in group:
            row[f"{rate.workers} workers"] = f"{rate.median:.0f} ({rate.least:.0f} to {rate.most:.0f})"
        rows.append(row)
    return text_table(rows)


def as_records(rates: Sequence[DataRate]) -> list[dict[str, Any]]:
    """The same numbers for JSON."""
    return [vars(rate) for rate in rates]

"""Time calls: the operators' passes, consecutive steps, a copy within the device's memory, a product of matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from infdiff.benchmark.operators import Case, backends_of, prepare
from infdiff.cuda_graphs import WARM_UP_CALLS
from infdiff.files import whole_file

Clock = Callable[[], float]  # seconds

_WARM_UP = 3
# A call, or a step, is not repeated for longer than this many seconds, but at least twice.
_LIMIT = 0.5
_STEPS_LIMIT = 10.0
_FEWEST = 2
# Steps before those that are timed: the first ones choose algorithms, allocate, fill caches, and the next is recorded.
WARM_UP_STEPS = WARM_UP_CALLS + 1
# The device waits this many times as long as the host needs to queue all calls, and no longer than this many seconds.
_HEAD_START = 1.5
_LONGEST_WAIT = 0.25
_CYCLES_A_SECOND = 2_000_000_000
_COPY_BYTES = 1 << 29
_COPIES = 20
_MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
_PRODUCTS = 20


class Timing(NamedTuple):
    """Duration of one call in milliseconds. spread: between the first and the third quartile."""

    median: float
    minimum: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        """Summary of two times or more."""
        quartiles = statistics.quantiles(times, n=4, method="inclusive")
        return cls(statistics.median(times), min(times), quartiles[2] - quartiles[0], len(times))


class Row(NamedTuple):
    """One pass of a case on a backend. route: the one that the operator took; bytes: the fewest that must be moved."""

    case: Case
    backend: str
    route: str
    direction: str  # "forward" or "forward+backward"
    timing: Timing
    bytes: int


class LeftOut(NamedTuple):
    """A case that was not timed on a backend."""

    case: Case
    backend: str
    why: str


def split(cases: Sequence[Case], device: torch.device) -> tuple[list[tuple[Case, str]], list[LeftOut]]:
    """Cases with each of their backends: those that can run on the device, and those that cannot."""
    pairs = [(case, backend, why) for case in cases for backend, why in backends_of(case, device).items()]
    runnable = [(case, backend) for case, backend, why in pairs if why is None]
    return runnable, [LeftOut(case, backend, why) for case, backend, why in pairs if why is not None]


def time_cases(
    pairs: Sequence[tuple[Case, str]],
    device: torch.device,
    seed: int,
    repeat: int,
    on_case: Callable[[], object] = lambda: None,
) -> tuple[list[Row], list[LeftOut]]:
    """Time every pass of every case. Also returns the cases that do not fit into memory. on_case: called after each."""
    rows, left_out = [], []
    for case, backend in pairs:
        try:
            subject, route = prepare(case, backend, device, seed)
            for direction, (call, count) in subject.passes().items():
                rows.append(Row(case, backend, route, direction, measure(call, device, repeat), count))
        except torch.OutOfMemoryError:
            left_out.append(LeftOut(case, backend, "the device's memory is too small"))
        on_case()
    return rows, left_out


def trace(pairs: Sequence[tuple[Case, str]], device: torch.device, seed: int, path: Path) -> None:
    """Write a Chrome trace of each pass of each case, run once after a first time."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for case, backend in pairs:
            with suppress(torch.OutOfMemoryError):
                subject, _ = prepare(case, backend, device, seed)
                for direction, (call, _) in subject.passes().items():
                    call()
                    with record_function(f"{case.operator}, {backend}, {direction}"):
                        call()
    with whole_file(path) as partial, TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        # The suffix tells the profiler whether to compress the trace.
        exported = Path(folder) / path.name
        profiler.export_chrome_trace(str(exported))
        exported.replace(partial)


def measure(call: Callable[[], object], device: torch.device, repeat: int, clock: Clock = time.perf_counter) -> Timing:
    """Time a call: a few times unmeasured, then up to `repeat` times, fewer when that would take long.

    On CUDA the time is the device's, between events. All calls are queued before the first begins, so that the
    device never waits for Python. A call that itself waits for the device is timed with its waiting.
    """
    for _ in range(_WARM_UP):
        started = _synchronized(device, clock)
        call()
        queued = clock() - started
        taken = max(_synchronized(device, clock) - started, 1e-9)
        if taken > _LIMIT:
            break
    count = _repeats(taken, repeat, _LIMIT)
    times = _on_cuda(call, count, queued) if device.type == "cuda" else _on_host(call, count, clock)
    return Timing.of(times)


class StepTimer:
    """Times consecutive steps: `tick` marks where one ends and the next begins.

    On CUDA the time is the device's, including its waits for the host.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._seconds: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def tick(self) -> None:
        """Mark the end of a step, without waiting for the device."""
        if self._device.type == "cuda":
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record()
        else:
            self._seconds.append(self._clock())

    def timing(self) -> Timing:
        """Summary of the steps between three ticks or more."""
        if self._events:
            self._events[-1].synchronize()
        between = [before.elapsed_time(after) for before, after in pairwise(self._events)]
        return Timing.of(between or [(after - before) * 1000 for before, after in pairwise(self._seconds)])


def step_repeats(seconds: float, most: int) -> int:
    """Number of timed repeats of a step that takes so long: between 2 and `most`, limited by `_STEPS_LIMIT` seconds."""
    return _repeats(seconds, most, _STEPS_LIMIT)


def time_steps(step: Callable[[], object], device: torch.device, most: int, clock: Clock = time.perf_counter) -> Timing:
    """Time a step that is called again and again, after WARM_UP_STEPS calls."""
    for _ in range(WARM_UP_STEPS):
        started = clock()
        step()
        ended = _synchronized(device, clock)
    timer = StepTimer(device, clock)
    timer.tick()
    for _ in range(step_repeats(ended - started, most)):
        step()
        timer.tick()
    return timer.timing()


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written together, of a copy within the device's memory."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = measure(lambda: target.copy_(source), device, _COPIES)
    return 2 * _COPY_BYTES / (timing.median / 1000)


def matrix_rate(
    device: torch.device, dtype: torch.dtype, side: int | None = None, clock: Clock = time.perf_counter
) -> float:
    """FLOP a second of the fastest of some products of large square matrices: the most that the device reaches.

    side: of the matrices, by default one that is large enough for the device.
    """
    side = side or _MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = measure(lambda: a @ b, device, _PRODUCTS, clock)
    return 2 * side**3 / (timing.minimum / 1000)


def _repeats(seconds: float, most: int, limit: float) -> int:
    return max(_FEWEST, min(most, int(limit / max(seconds, 1e-9))))


def _synchronized(device: torch.device, clock: Clock) -> float:
    """Read the clock once the device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def _on_host(call: Callable[[], object], count: int, clock: Clock) -> list[float]:
    times = []
    for _ in range(count):
        started = clock()
        call()
        times.append((clock() - started) * 1000)
    return times


def _on_cuda(call: Callable[[], object], count: int, queued: float) -> list[float]:
    """Times of `count` calls in milliseconds. queued: seconds that the host needs to queue one."""
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
    torch.cuda._sleep(int(min(_HEAD_START * count * queued, _LONGEST_WAIT) * _CYCLES_A_SECOND))
    for before, after in marks:
        before.record()
        call()
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in marks]

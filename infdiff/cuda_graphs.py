"""Calls that repeat with the same shapes: run twice, then recorded as a CUDA graph, and from then on replayed.

A replay launches all kernels of a call at once, so that the host no longer counts. It reads and writes the memory that
the recorded call did: numbers that change from call to call have to be tensors, and what draws random numbers has to
draw from PyTorch's own generators or from those that are registered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# Calls before a recording: they choose algorithms, compile kernels, and fill caches that the recording reads.
WARM_UP_CALLS = 2

_eager = False


@contextmanager
def force_eager() -> Iterator[None]:
    """Run every call itself inside the block: nothing is recorded or replayed."""
    global _eager
    before, _eager = _eager, True
    try:
        yield
    finally:
        _eager = before


def why_no_graphs(device: torch.device) -> str | None:
    """Return why calls cannot be recorded on a device, or None where they can."""
    return None if device.type == "cuda" else f"CUDA graphs want a CUDA device, and this is {device.type}"


def recorder_for(device: torch.device) -> Recorder | None:
    """Return what records calls on a device; None where they cannot be."""
    return None if why_no_graphs(device) else Recorder(device)


class Recorder:
    """Records calls on a CUDA device. Recordings share memory: what a replay leaves holds until the next one alone.

    generators: what calls draw from in addition to PyTorch's own generators; set their seeds before a call.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
        self.device, self.generators = device, generators
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, call: Callable[[], Tensor]) -> Tensor:
        """Run a call on the stream that will record it, in order with the current one."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            out = call()
        current.wait_stream(self.stream)
        return out

    def record(self, call: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Return what replays a call, and the tensor in which it leaves its result. Nothing is computed yet."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            # thread_local: the threads that load batches may allocate pinned memory meanwhile.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                out = call()
        finally:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own in place
        return graph.replay, out


class Repeated:
    """A function of tensors of the same shapes in every call."""

    def __init__(self, calls: RepeatedCalls, function: Callable[..., Tensor]) -> None:
        self.calls, self.function, self.count = calls, function, 0
        self._inputs: tuple[Tensor, ...] = ()
        self._recorded: tuple[Callable[[], object], Tensor] | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return function(*inputs); the result is the caller's own."""
        recorder = self.calls.recorder
        if recorder is None or _eager:
            return self.function(*inputs)
        if self.count < WARM_UP_CALLS:
            self.count += 1
            return recorder.run(lambda: self.function(*inputs))
        if self._recorded is None:
            self._inputs = tuple(given.clone() for given in inputs)
            try:
                self._recorded = recorder.record(lambda: self.function(*self._inputs))
            except RuntimeError as error:
                self.calls.close(error)
                return self.function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        replay, out = self._recorded
        replay()
        return out.clone()


class RepeatedCalls:
    """Functions by what decides the shapes inside them; the `most` that were used last keep their recordings.

    recorder: None to run every call itself. on_close(error): a call could not be recorded; from then on all run
    themselves, and this one does as soon as it returns.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        *,
        most: int,
        on_close: Callable[[RuntimeError], object] = lambda error: None,
    ) -> None:
        self.recorder, self.most, self.on_close = recorder, most, on_close
        self._functions: OrderedDict[Hashable, Repeated] = OrderedDict()

    def of(self, key: Hashable, make: Callable[[], Callable[..., Tensor]]) -> Repeated:
        """Return the function of a key, made at its first use."""
        if key not in self._functions:
            self._functions[key] = Repeated(self, make())
            while len(self._functions) > self.most:
                self._functions.popitem(last=False)
        self._functions.move_to_end(key)
        return self._functions[key]

    def close(self, error: RuntimeError) -> None:
        """Run every call itself from now on, and free all recordings."""
        self.recorder = None
        self._functions.clear()
        self.on_close(error)

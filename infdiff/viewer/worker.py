"""A thread that samples, one task after another; what nobody waits for any more ends within a step."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Result = TypeVar("Result")

# Seconds between two looks whether a task is still wanted while it waits.
_POLL = 0.05

# Raises AbandonedError when the task's result is not wanted any more; to be called at each step.
Check = Callable[[], None]


class AbandonedError(Exception):
    """Nobody waits for the result of this task."""


@dataclass(order=True)
class _Task:
    priority: int
    number: int
    run: Callable[[], None] = field(compare=False)


class Worker:
    """One thread, so that tasks do not compete for the processor, and its threads of tensors are made once."""

    def __init__(self) -> None:
        self._tasks: queue.PriorityQueue[_Task] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of tasks that have not begun, at about this time."""
        return self._tasks.qsize()

    def do(self, run: Callable[[Check], Result], wanted: Callable[[], bool], priority: int = 0) -> Result:
        """Wait for run(check) in the thread and return its result, or raise what it raised.

        wanted: False once nobody waits; then, and once this is closed, AbandonedError is raised. priority: lower
        ones first, from 0.
        """
        outcome = _Outcome[Result]()

        def check() -> None:
            if self._closed or not wanted():
                raise AbandonedError

        def task() -> None:
            try:
                check()
                outcome.result = run(check)
            except BaseException as error:
                outcome.error = error
            outcome.done.set()

        self._tasks.put(_Task(priority, next(self._numbers), task))
        while not outcome.done.wait(_POLL):
            check()  # the thread does the same when it comes to the task, or to its next step
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        return outcome.result

    def close(self) -> None:
        """End the task under way within a step, and begin no other one.

        A process that ends while PyTorch computes in a thread is aborted by the C++ library.
        """
        self._closed = True
        self._tasks.put(_Task(-1, next(self._numbers), lambda: None))  # wakes the thread
        self._thread.join()

    def _work(self) -> None:
        while not self._closed:
            self._tasks.get().run()


class _Outcome(Generic[Result]):
    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Result | None = None
        self.error: BaseException | None = None

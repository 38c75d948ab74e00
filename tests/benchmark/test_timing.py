"""Timings, by a clock that the test moves."""

from types import SimpleNamespace

import pytest
import torch

from infdiff.benchmark import timing
from infdiff.benchmark.timing import WARM_UP_STEPS, StepTimer, matrix_rate, measure, step_repeats, time_steps

CPU = torch.device("cpu")


class Clock:
    """Stands still but for `advance`."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def advance(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock():
    return Clock()


def test_a_call_is_timed_after_a_warm_up_as_often_as_asked(clock):
    durations = iter([0.03, 0.02, 0.01, 0.002, 0.004, 0.003, 0.001, 0.005])
    found = measure(lambda: clock.advance(next(durations)), CPU, 5, clock)
    assert found == pytest.approx((3.0, 1.0, 2.0, 5))
    assert next(durations, None) is None


def test_a_long_call_is_timed_twice_after_one(clock):
    calls = []
    found = measure(lambda: calls.append(clock.advance(0.51)), CPU, 7, clock)
    assert (found.repeats, len(calls)) == (2, 3)


def test_a_step_is_timed_after_the_warm_up(clock):
    durations = iter([9.0] * (WARM_UP_STEPS - 1) + [0.3] + [0.01, 0.02, 0.03, 0.04])
    found = time_steps(lambda: clock.advance(next(durations)), CPU, 4, clock)
    assert found == pytest.approx((25.0, 10.0, 15.0, 4))
    assert next(durations, None) is None


def test_long_steps_are_timed_twice_and_short_ones_as_often_as_asked():
    assert (step_repeats(100.0, 10), step_repeats(0.001, 10), step_repeats(2.5, 10)) == (2, 10, 4)


def test_steps_last_from_tick_to_tick(clock):
    timer = StepTimer(CPU, clock)
    for seconds in (0.02, 0.08, 0.03, 0):
        timer.tick()
        clock.advance(seconds)
    assert timer.timing() == pytest.approx((30.0, 20.0, 30.0, 3))


def test_the_matrix_rate_counts_two_flop_for_each_multiply_add(clock, monkeypatch):
    product = torch.Tensor.__matmul__

    def timed(a, b):
        clock.advance(0.25)
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", timed)
    assert matrix_rate(CPU, torch.float32, side=16, clock=clock) == pytest.approx(2 * 16**3 / 0.25)


def test_on_cuda_the_device_waits_until_all_calls_are_queued(monkeypatch):
    done = []
    event = SimpleNamespace(record=lambda: done.append("mark"), elapsed_time=lambda other: 1.5)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("wait"), raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: done.append("synchronize"))
    found = timing.measure(lambda: done.append("call"), torch.device("cuda"), 4)
    assert found == timing.Timing(1.5, 1.5, 0.0, 4)
    assert done[done.index("wait") :] == ["wait", *["mark", "call", "mark"] * 4, "synchronize"]

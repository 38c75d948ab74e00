"""The most memory that was taken at once."""

import pytest
import torch

from infdiff.memory import PeakMemory

MEGABYTES = 200


def taken():
    return torch.ones(MEGABYTES, 1_000_000, dtype=torch.uint8)


def test_the_peak_is_of_what_was_taken_since_and_forgets_when_reset():
    memory = PeakMemory(torch.device("cpu"))
    if memory.bytes() is None:
        pytest.skip("this system does not tell how much memory a process takes")
    assert memory.bytes() < 20e6
    del_me = taken()
    del del_me
    assert 0.99 * MEGABYTES * 1e6 < memory.bytes() < 1.1 * MEGABYTES * 1e6
    memory.reset()
    assert memory.bytes() < 20e6
    held = taken()
    # What is still held counts after a reset, too, but not for one that begins now.
    memory.reset()
    assert memory.bytes() > 0.99 * held.numel()
    assert PeakMemory(torch.device("cpu")).bytes() < 20e6

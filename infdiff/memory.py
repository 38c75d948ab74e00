"""Memory of this process: glibc allocator settings for CPU tensors, and the most that was taken at once.

The allocator settings do nothing on other C libraries.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_THE_PEAK = "5"


def retain_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of returning it to the kernel.

    Sampling frees and allocates the same hundreds of megabytes many times a step. Handing them back and forth, page by
    page, took two thirds of the time of a step at 1024 x 1024.
    """
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(mmap_threshold, most)
        mallopt(trim_threshold, most)


def trim_heap() -> None:
    """Return what has been kept: where other sizes follow, they would not fit into its gaps, and memory would grow."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def mapped_empty(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor of a type and device; on a CPU in memory of its own, which is returned with it.

    For large blocks that live long: between them, kept memory falls to pieces.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * like.element_size()))
    return torch.frombuffer(memory, dtype=like.dtype, count=count).view(shape)


class PeakMemory:
    """The most memory taken at once since the last `reset`, beyond what was taken when this was made.

    On CUDA what PyTorch's allocator holds in tensors. On a CPU what the process gained in resident memory, which the
    libraries' own buffers are part of; Linux alone tells it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS")

    def reset(self) -> None:
        """Begin anew: what is taken now is the most so far."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        trim_heap()
        with suppress(OSError):
            _RESET.write_text(_RESET_THE_PEAK)

    def bytes(self) -> int | None:
        """None where it cannot be told."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _resident("VmHWM")
        return None if peak is None or self.before is None else max(0, peak - self.before)


def _resident(key: str) -> int | None:
    """Bytes, as the kernel counts them: VmRSS now, VmHWM at most. None where it does not, or cannot begin anew."""
    if not os.access(_RESET, os.W_OK):
        return None
    found = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


@cache
def _libc(name: str) -> Callable[..., int] | None:
    """A function of the C library, or None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None

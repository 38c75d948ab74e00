"""Memory of this process: glibc allocator settings for CPU tensors, and peak memory.

The allocator settings are no-ops on other C libraries.
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

    Sampling frees and allocates the same hundreds of megabytes many times a step. Returning and zeroing them page by
    page took two thirds of the time of a step at 1024 x 1024.
    """
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(mmap_threshold, most)
        mallopt(trim_threshold, most)


def trim_heap() -> None:
    """Return freed memory to the kernel: call it before allocations of other sizes, which would not fit the blocks."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def mapped_empty(like: Tensor, *shape: int) -> Tensor:
    """Allocate an uninitialised tensor like another; on a CPU in a mapping that is returned when it is freed.

    For large, long-lived buffers, which would otherwise fragment the heap.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * like.element_size()))
    return torch.frombuffer(memory, dtype=like.dtype, count=count).view(shape)


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors can still take of a CUDA device, or of the slice of one that is there; None for others."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


class PeakMemory:
    """Peak memory since the last `reset`, above the memory in use at construction.

    On CUDA the memory of tensors in PyTorch's allocator. On a CPU the resident memory of the process, buffers of
    libraries included; only Linux reports it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS")

    def reset(self) -> None:
        """Reset the peak to the memory in use."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        trim_heap()
        with suppress(OSError):
            _RESET.write_text(_RESET_THE_PEAK)

    def bytes(self) -> int | None:
        """Return the peak, or None if it is unknown."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _resident("VmHWM")
        return None if peak is None or self.before is None else max(0, peak - self.before)


def _resident(key: str) -> int | None:
    """Return the kernel's count in bytes: VmRSS now, VmHWM at peak. None if unreported or the peak cannot be reset."""
    if not os.access(_RESET, os.W_OK):
        return None
    found = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


@cache
def _libc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if there is none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None

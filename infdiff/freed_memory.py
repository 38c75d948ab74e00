"""What becomes of the memory of freed tensors on a CPU. Elsewhere than on glibc this does nothing."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of returning it to the kernel.

    Sampling frees and allocates the same hundreds of megabytes many times a step. Handing them back and forth, page by
    page, took two thirds of the time of a step at 1024 x 1024.
    """
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(mmap_threshold, most)
        mallopt(trim_threshold, most)


def give_back_freed_memory() -> None:
    """Return what has been kept: where other sizes follow, they would not fit into its gaps, and memory would grow."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def own_memory(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor of a type and device; on a CPU in memory of its own, which is returned with it.

    For large blocks that live long: between them, kept memory falls to pieces.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * like.element_size()))
    return torch.frombuffer(memory, dtype=like.dtype, count=count).view(shape)


@cache
def _libc(name: str) -> Callable[..., int] | None:
    """A function of the C library, or None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None

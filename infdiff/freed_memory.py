"""What becomes of the memory of freed tensors on a CPU. Elsewhere than on glibc this does nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of returning it to the kernel.

    Sampling frees and allocates the same hundreds of megabytes many times a step. Handing them back and forth, page by
    page, took two thirds of the time of a step at 1024 x 1024. Blocks above 300 MiB are returned all the same: no image
    that goes through the network at once has many of them, and between them the kept memory would fall to pieces.
    """
    trim_threshold, mmap_threshold = -1, -3
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(mmap_threshold, 300 * 2**20)
        mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return what has been kept: where other sizes follow, they would not fit into its gaps, and memory would grow."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


@cache
def _libc(name: str) -> Callable[..., int] | None:
    """A function of the C library, or None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None

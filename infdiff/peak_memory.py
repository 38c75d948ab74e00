"""How much memory this process takes, on a CUDA device or the host."""

from __future__ import annotations

import gc
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

from infdiff.freed_memory import give_back_freed_memory

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_THE_PEAK = "5"


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
        give_back_freed_memory()
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

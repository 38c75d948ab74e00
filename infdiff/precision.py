"""Number formats: where training in bfloat16 pays, and what stays out of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return True for a device with matrix units for bfloat16: CUDA, and CPUs with AMX.

    On other CPUs autocast only adds conversions.
    """
    if device.type == "cuda":
        return True
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast, for sums that are not for bfloat16. (The meta device knows no autocast.)"""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()

"""Randomness as a pure function of (seed, step, rank or sample index)."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch

_SEEDS = 2**63


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and their order: well mixed, and the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """Return a fresh generator on `device`, seeded with `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def seed_global(device: torch.device, *parts: int | str) -> None:
    """Seed the generators that modules such as dropout draw from, on the host and on `device`, with `derive_seed`.

    `torch.manual_seed` does so on every kind of device, and takes milliseconds for those that are not there.
    """
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed_all(seed)


def draw_part(weights: Sequence[float], *parts: int | str) -> int:
    """Return a number from 0 to len(weights) - 1, drawn with these weights: a function of `parts`, as `derive_seed`.

    Raises ValueError unless the weights are not negative and not all 0.
    """
    if not sum(weights) > 0 or min(weights) < 0:
        raise ValueError(f"weights {list(weights)}: want numbers from 0 on, not all 0")
    bounds = list(accumulate(weights))
    last = max(number for number, weight in enumerate(weights) if weight > 0)
    return min(bisect_right(bounds, derive_seed(*parts) / _SEEDS * bounds[-1]), last)

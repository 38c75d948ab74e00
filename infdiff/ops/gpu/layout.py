"""Memory and sizes as kernels want them: contiguous, aligned, strides between images, lanes, blocks."""

from __future__ import annotations

from torch import Tensor

from infdiff.ops.gpu import launch

_ALIGNMENT = 16
# Partial sums of the gradient to the taps: enough to fill any device, and few enough to add up in no time. Numbers that
# depend on shapes alone, so that the order of the sums, and so every bit of the result, is the same everywhere.
_CHUNKS = 1024
_PARTIAL_SUMS = 1 << 24


def features_defines(features: Tensor) -> dict[str, int]:
    """The settings that a source with features.cuh is compiled for."""
    return {"SCALAR": launch.SCALARS[features.dtype], "CHANNELS": features.shape[-1]}


def images(rows: Tensor) -> tuple[Tensor, int]:
    """Contiguous memory and the stride from one image to the next: 0 when all share one."""
    if rows.shape[0] == 1 or rows.stride(0) == 0:
        return rows[:1].contiguous().expand(rows.shape), 0
    rows = rows.contiguous()
    return rows, rows.stride(0)


def aligned(features: Tensor) -> Tensor:
    """Contiguous memory that starts where 16 bytes can be read at once."""
    features = features.contiguous()
    return features.clone() if features.data_ptr() % _ALIGNMENT else features


def vectors(channels: int) -> int:
    """VECTORS of cuda/features.cuh."""
    return channels // 8 if channels % 8 == 0 else channels


def lanes(channels: int) -> int:
    """LANES of cuda/features.cuh."""
    return min(32, 1 << (vectors(channels) - 1).bit_length())


def ceil(n: int, size: int) -> int:
    """The number of pieces of `size` that hold n."""
    return -(-n // size)


def blocks(threads: int) -> int:
    """The number of blocks that hold this many threads."""
    return ceil(threads, launch.THREADS)


def chunks(parts: int, sums: int, least: int = 1) -> tuple[int, int]:
    """(How many chunks, parts of one chunk): for a sum over `parts`, each chunk with `sums` partial sums of its own.

    least: the fewest parts of a chunk.
    """
    most = max(1, min(_CHUNKS, _PARTIAL_SUMS // sums))
    length = max(least, ceil(parts, most))
    return ceil(parts, length), length

"""Deterministic algorithms alone, so that a run that is continued on CUDA ends with the same bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Let PyTorch choose deterministic algorithms inside, if wanted, and what it chose before outside.

    PyTorch raises a RuntimeError for an operation that has none. Products of matrices need an environment variable
    before CUDA starts: commands set it; programs that start CUDA earlier set CUBLAS_WORKSPACE_CONFIG=:4096:8
    themselves.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    timed = cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=False)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = timed

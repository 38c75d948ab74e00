"""Memory of training: what is cheap to compute again is not kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Bytes that are kept, and not computed again: reading and writing them takes a GPU about as long as a launch.
_KEPT = 1 << 25


def applied(function: Callable[[Tensor], Tensor], cheap: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(cheap(x)). On CUDA under autocast, backward calls `cheap` again and its result, if large, is not kept.

    cheap: a function without randomness, such as a normalisation, that keeps x itself for its own gradient. Compilers
    choose by themselves what they keep.
    """
    return _forgetful(function, cheap(x), cheap, x)


def applied_passing(
    function: Callable[[Tensor], Tensor], norm: Passing, x: Tensor, added: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """function(norm(x + added)), as `applied`, and x + added for a residual connection; added: None for x alone."""
    y, total = norm.passing(x, added)
    return _forgetful(function, y, norm, total), total


class Passing(Protocol):
    """A cheap function that also returns what it is a function of."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def passing(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


def _forgetful(function: Callable[[Tensor], Tensor], y: Tensor, cheap: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(y), where y = cheap(x) is large not kept for the backward pass."""
    if not recomputes(x):
        return function(y)
    storage, dtype = _storage(y), y.dtype

    # No reference to y: the hooks live as long as the graph. What autograd keeps may be a view of y.
    def pack(tensor: Tensor) -> Tensor | _View:
        if _storage(tensor) != storage or tensor.dtype != dtype:
            return tensor
        return _View(tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def unpack(kept: Tensor | _View) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return cheap(x).as_strided(*kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return function(y)


def recomputes(x: Tensor) -> bool:
    """Return True where memory is worth more than the time to compute something cheap again."""
    if torch.compiler.is_compiling() or x.device.type != "cuda" or x.nbytes <= _KEPT:
        return False
    return torch.is_grad_enabled() and torch.is_autocast_enabled("cuda")


class _View(NamedTuple):
    """A place in the memory of what `cheap` returns, which lies there as it did."""

    shape: Sequence[int]
    stride: Sequence[int]
    offset: int


def _storage(tensor: Tensor) -> int:
    """Return a number for a tensor's memory, while it lives."""
    return int(tensor.untyped_storage()._cdata)

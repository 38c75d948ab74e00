"""Bytes that an operator moves from and to memory, by its tensors alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

# Operators that fill what they change, and do not read it.
_FILL = ("copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_")
# Arguments that an operator may change, and here leaves as they are: gradients, but for a `grad_scale`.
_LEFT = {("_fused_adamw_", "grads")}


def moved_bytes(function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the bytes that an operator reads and writes if each tensor passes once, and one changed in place twice.

    An operator may move more (several kernels, a cache that is too small) or less (one that reads chosen rows).
    """
    name, total = function._schema.name.removeprefix("aten::"), 0
    given = dict(zip((a.name for a in function._schema.arguments), args, strict=False)) | dict(kwargs)
    for argument in function._schema.arguments:
        changed = argument.alias_info is not None and argument.alias_info.is_write
        twice = changed and name not in _FILL and (name, argument.name) not in _LEFT
        total += (1 + twice) * sum(map(_bytes, _tensors(given.get(argument.name))))
    returned = result if isinstance(result, tuple) else (result,)
    for part, value in zip(function._schema.returns, returned, strict=False):
        if part.alias_info is None:  # else it is an argument
            total += sum(map(_bytes, _tensors(value)))
    return total


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's memory; what is repeated by `expand` is there once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * prod(side for side, step in sides if step or not side)

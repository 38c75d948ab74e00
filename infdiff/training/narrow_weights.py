"""Weights in bfloat16 for networks under autocast: cast together, and their gradients back to float32 together.

By itself autocast casts each weight where it is first used, and each gradient where it arrives: two small kernels for
every weight. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infdiff.precision import narrowed

# Numbers that are cast at once. Gradients of a group are there when the last of them is, and processes that train
# together exchange those of one group while the next is computed.
_GROUP = 1 << 26


@contextmanager
def bfloat16_weights(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Put copies in place of the weights that autocast would cast, inside the block; yields the copies.

    Gradients of a copy become those of its weight, whose own type they have. Weights that require none are left out.
    """
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for network in modules:
        for module, name in narrowed(network):
            parameter = module._parameters[name]
            if parameter is not None and parameter.dtype == torch.float32:
                places.setdefault(parameter, []).append((module, name))
    copies: list[Tensor] = []
    for group in _groups(list(places)):
        copies += _Narrow.apply(*group)  # type: ignore[no-untyped-call]
    try:
        for copy, users in zip(copies, places.values(), strict=True):
            for module, name in users:
                module._parameters[name] = copy  # type: ignore[assignment]
        yield copies
    finally:
        for parameter, users in places.items():
            for module, name in users:
                module._parameters[name] = parameter


def _groups(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    group: list[nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        group.append(parameter)
        numbers += parameter.numel()
        if numbers >= _GROUP:
            yield group
            group, numbers = [], 0
    if group:
        yield group


class _Narrow(torch.autograd.Function):
    """Tensors in bfloat16, in one call for all."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        copies = _cast(tensors, torch.bfloat16)
        fixed = [copy for copy, needed in zip(copies, ctx.needs_input_grad, strict=True) if not needed]
        ctx.mark_non_differentiable(*fixed)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = iter(_cast([g for g in gradients if g is not None], torch.float32))
        return tuple(None if g is None else next(wide) for g in gradients)


def _cast(tensors: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    given = list(tensors)
    copies = [torch.empty_like(t, dtype=dtype) for t in given]
    if given:
        torch._foreach_copy_(copies, given)
    return copies

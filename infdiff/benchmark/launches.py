"""Operators that launch kernels, FLOP and bytes moved, by the part of a step; and what is kept for backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from infdiff.benchmark.flops import flop_counter
from infdiff.benchmark.moved_bytes import moved_bytes

# Of operators that return new memory without filling it, or the same memory.
_IDLE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh")


class PartCounter(TorchDispatchMode):
    """Counts in a `with` block, by part: operators that launch a kernel, views excluded, FLOP, and bytes moved.

    An operator counts once, whatever it launches; so do our own. part: where the counts go, until it changes. moved:
    bytes by part, as in `moved_bytes`, of operators that launch a kernel.
    """

    def __init__(self, part: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: dict[str, Counter[str]] = {}
        self.flop: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self._part, self._flop, self._flop_so_far = part, flop_counter(), 0

    @property
    def part(self) -> str:
        return self._part

    @part.setter
    def part(self, name: str) -> None:
        total = int(self._flop.get_total_flops())
        self.flop[self._part] += total - self._flop_so_far
        self._part, self._flop_so_far = name, total

    def launches(self, part: str) -> int:
        """Return the number of operators of a part."""
        return sum(self.operators.get(part, Counter()).values())

    @contextmanager
    def within(self, module: nn.Module, name: str) -> Iterator[None]:
        """A context in which what a module's forward pass does is a part of its own."""
        outer: list[str] = []

        def enter(*_: Any) -> None:
            outer.append(self.part)
            self.part = name

        def leave(*_: Any) -> None:
            self.part = outer.pop()

        hooks = module.register_forward_pre_hook(enter), module.register_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __enter__(self) -> PartCounter:
        self._flop.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._flop.__exit__(*error)
        self.part = self._part

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if launches_kernel(function):
            self.operators.setdefault(self._part, Counter())[str(function)] += 1
            self.moved[self._part] += moved_bytes(function, args, kwargs or {}, result)
        return result


def launches_kernel(function: OpOverload) -> bool:
    """Return True for an operator that fills memory."""
    schema = function._schema
    if any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments):
        return True  # also where nothing is returned, as by operators on lists
    if schema.name.removeprefix("aten::") in _IDLE or not any(str(r.type).count("Tensor") for r in schema.returns):
        return False
    return not any(a.alias_info is not None and not a.alias_info.is_write for a in schema.arguments)


class SavedForBackward(torch.autograd.graph.saved_tensors_hooks):
    """A context that keeps what autograd saves; storages count once, those in `besides` not at all.

    besides: tensors that are there anyhow, as parameters are. Not seen: what hooks inside this context keep, as
    `nn.recompute` does of weights.
    """

    def __init__(self, besides: Collection[Tensor] = ()) -> None:
        self._besides = {_storage(tensor) for tensor in besides}
        self._saved: dict[int, Tensor] = {}  # kept alive, so that the address of a storage stays unique

        def keep(tensor: Tensor) -> Tensor:
            self._saved[_storage(tensor)] = tensor.detach()
            return tensor

        super().__init__(keep, lambda tensor: tensor)

    def __enter__(self) -> SavedForBackward:  # type: ignore[override]
        super().__enter__()
        return self

    def nbytes(self, among: Collection[Tensor] | None = None) -> int:
        """Return the bytes of what was saved; among: of these tensors alone."""
        chosen = None if among is None else {_storage(tensor) for tensor in among}
        return sum(
            tensor.untyped_storage().nbytes()
            for storage, tensor in self._saved.items()
            if storage not in self._besides and (chosen is None or storage in chosen)
        )


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

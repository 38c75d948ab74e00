"""Registration of operators with PyTorch, and their rule under autocast.

An operator is a function of tensors and plain numbers, registered with `torch.library.custom_op`, so that PyTorch
treats it as one of its own: traced without a break by `torch.compile`, differentiated by the rule given, checked by
`opcheck`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def operator(name: str, schema: str | None = None) -> Callable[[Callable[_Arguments, _Result]], CustomOpDef]:
    """Register a function as the operator infdiff::NAME. By default its annotations are the schema.

    It runs with autocast disabled; inputs already have their compute dtype.
    """

    def register(function: Callable[_Arguments, _Result]) -> CustomOpDef:
        @wraps(function)
        def without_autocast(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
            device = next(a.device.type for a in arguments if isinstance(a, Tensor))
            if not _autocasts(device):
                return function(*arguments, **named)
            with torch.autocast(device, enabled=False):
                return function(*arguments, **named)

        signature = schema or torch.library.infer_schema(function, mutates_args=())
        registered = torch.library.custom_op(f"infdiff::{name}", without_autocast, mutates_args=(), schema=signature)
        _load_no_compiler(registered, without_autocast)
        return registered

    return register


def _load_no_compiler(registered: CustomOpDef, function: Callable[..., object]) -> None:
    """Call the function without the wrapper by which PyTorch keeps torch.compile out of it, where that is not loaded.

    The wrapper would load it at the first call of any operator: 70 MB of memory and two seconds.
    """
    functions = getattr(registered, "_backend_fns", {})
    wrapped = functions.get(None)
    if wrapped is None:  # another version of PyTorch may store it elsewhere: then it stays as it is
        return

    def called(*arguments: object, **named: object) -> object:
        return (wrapped if "torch._dynamo" in sys.modules else function)(*arguments, **named)

    functions[None] = called


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's type, where autocast is on for their device; float64 stays, as in PyTorch's rules.

    Every operator on features begins with it. Sums inside are in float32 in any case.
    """
    device = tensors[0].device.type
    if not _autocasts(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def _autocasts(device: str) -> bool:
    """True where autocast is on. PyTorch raises when asked about the meta device, which has none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)

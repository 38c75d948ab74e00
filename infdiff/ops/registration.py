"""What all operators share in the way they are made known to PyTorch.

An operator is a function of tensors and plain numbers, registered with `torch.library.custom_op`, so that PyTorch
treats it as one of its own: traced whole by `torch.compile`, differentiated by the rule given, checked by `opcheck`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
from torch import Tensor

from infdiff.coordinates import Size

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def operator(name: str) -> Callable[[Callable[_Arguments, _Result]], CustomOpDef]:
    """Register a function as the operator infdiff::NAME; its annotations are the schema.

    It runs with autocast off: it was given tensors of the types it has to work in.
    """

    def register(function: Callable[_Arguments, _Result]) -> CustomOpDef:
        @wraps(function)
        def without_autocast(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
            device = next(a.device.type for a in arguments if isinstance(a, Tensor))
            if not _autocasts(device):
                return function(*arguments, **named)
            with torch.autocast(device, enabled=False):
                return function(*arguments, **named)

        schema = torch.library.infer_schema(function, mutates_args=())
        return torch.library.custom_op(f"infdiff::{name}", without_autocast, mutates_args=(), schema=schema)

    return register


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
    """The meta device knows no autocast, and says so by an error."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def same_points(ids: Tensor) -> Tensor:
    """One row of ids where all rows share memory: what depends on it need be computed only once."""
    return ids[:1] if ids.stride(0) == 0 else ids


def check_ids(ids: Tensor, size: Size) -> None:
    """Raise ValueError unless ids is (B, L) int64 with 1 <= L <= H * W. Looks at shapes alone."""
    if ids.dim() != 2 or ids.dtype != torch.int64:
        raise ValueError(f"ids {tuple(ids.shape)} {ids.dtype}: want (B, L) of torch.int64")
    if not 1 <= ids.shape[1] <= size[0] * size[1]:
        raise ValueError(f"ids hold {ids.shape[1]} points of an image of {size[0]}x{size[1]} pixels")


def check_order(ids: Tensor, size: Size) -> None:
    """Raise ValueError unless ids ascend in each row, without repeats, within the image.

    On a CUDA device the check runs there and is reported at the next synchronisation: nothing waits for it.
    """
    ids = same_points(ids)
    inside = (ids[:, 0] >= 0).all() & (ids[:, -1] < size[0] * size[1]).all()
    ascending = (ids[:, 1:] > ids[:, :-1]).all()
    range_message = f"ids out of range: pixels of a {size[0]}x{size[1]} image are 0 to {size[0] * size[1] - 1}"
    order_message = "ids must ascend in each row, without repeats"
    if ids.device.type == "cuda":
        torch._assert_async(ascending, order_message)
        torch._assert_async(inside, range_message)
    elif not ascending:
        raise ValueError(order_message)
    elif not inside:
        raise ValueError(range_message)


def check_same_device(features: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError naming the argument that is not where the features are."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != features.device:
            raise ValueError(f"{name} is on {tensor.device}, the features are on {features.device}")

"""The meta device in the place of a CUDA device: calls take the ways they take there, without memory or a GPU.

Autocast does not reach the meta device, so its rules for CUDA are applied here, to the functions that networks call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
_META = torch.device("meta")
# Functions that autocast runs in bfloat16, and in float32, as far as networks and losses here may call them.
_NARROW = {
    *(F.linear, F.conv2d, F.conv1d, F.conv_transpose2d, F.bilinear),
    *(torch.conv2d, torch.conv1d, torch.conv_transpose2d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm),
}
_WIDE = {
    *(F.layer_norm, F.group_norm, F.softmax, F.mse_loss, F.l1_loss, torch.layer_norm, torch.group_norm),
    *(torch.softmax, torch.exp, torch.log, torch.pow, torch.rsqrt, torch.reciprocal, torch.cumsum, torch.prod),
    *(torch.sum, torch.norm),
    *(Tensor.softmax, Tensor.exp, Tensor.log, Tensor.pow, Tensor.__pow__, Tensor.rsqrt, Tensor.reciprocal),
    *(Tensor.cumsum, Tensor.prod, Tensor.sum, Tensor.norm),
}


class MetaGenerator(torch.Generator):
    """A generator for draws on the meta device that says it is the CUDA device's."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA


class AsOnCuda(TorchFunctionMode):
    """A context in which meta tensors say that they are on a CUDA device, and what is made there is on the meta device.

    Inside `autocast()`, functions run in the types of CUDA's autocast. copies: the bfloat16 copies of
    parameters that it made, by the parameter's id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function == Tensor.device.__get__:
            device = function(*args)
            return CUDA if device.type == "meta" else device
        arguments, named = [_on_meta(a) for a in args], {key: _on_meta(a) for key, a in (kwargs or {}).items()}
        if torch.is_autocast_enabled("cuda"):
            if function in _NARROW or function is F.scaled_dot_product_attention:
                arguments, named = self._cast(arguments, named, torch.bfloat16)
            elif function in _WIDE:
                arguments, named = self._cast(arguments, named, torch.float32)
        if function is F.dropout:
            return _dropout(*arguments, **named)
        if function is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*arguments, **named)[0]
        return function(*arguments, **named)

    @contextmanager
    def autocast(self, enabled: bool = True) -> Iterator[None]:
        """Autocast to bfloat16, as the trainer has it on CUDA."""
        before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
            self.copies.clear()

    def _cast(
        self, arguments: list[Any], named: dict[str, Any], dtype: torch.dtype
    ) -> tuple[list[Any], dict[str, Any]]:
        return [self._to(a, dtype) for a in arguments], {key: self._to(a, dtype) for key, a in named.items()}

    def _to(self, argument: Any, dtype: torch.dtype) -> Any:
        if not isinstance(argument, Tensor) or not argument.is_floating_point() or argument.dtype == torch.float64:
            return argument
        if argument.dtype == dtype:
            return argument
        if not (argument.is_leaf and argument.requires_grad and torch.is_grad_enabled()) or dtype != torch.bfloat16:
            return argument.to(dtype)
        # Autocast keeps the copies of parameters until it ends.
        if id(argument) not in self.copies:
            self.copies[id(argument)] = argument.to(dtype)
        return self.copies[id(argument)]


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout in one kernel, as on CUDA."""
    out: Tensor = torch.ops.aten.native_dropout(x, p, True)[0] if training and p else x
    return out


def _on_meta(argument: Any) -> Any:
    if isinstance(argument, torch.device) and argument.type == "cuda":
        return _META
    return argument

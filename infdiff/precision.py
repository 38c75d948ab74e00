"""Number formats: where bfloat16 pays, what stays out of it, and how CUDA devices multiply.

The policy, for training and sampling alike:

- Networks run under bfloat16 autocast where `train.bfloat16` says so and the device is faster for it. Weights,
  gradients and moments are float32.
- What autocast leaves in float32 is there because it has to be exact: T, the embedding of times, latents, FFTs.
  Products of matrices in float32 are therefore never rounded to TF32.
- Convolutions in float32 may be (as PyTorch has it by itself): with `train.bfloat16: false` they are most of the work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return True for a device with matrix units for bfloat16: CUDA, and CPUs with AMX.

    On other CPUs autocast only adds conversions.
    """
    if device.type == "cuda":
        return True
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast, for sums that are not for bfloat16. (The meta device knows no autocast.)"""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


@contextmanager
def number_formats(device: torch.device, *, bfloat16: bool, static: bool = False) -> Iterator[None]:
    """Run a network by the policy above.

    static: the same shapes come often, so that cuDNN may try its algorithms on each; never where PyTorch is to be
    deterministic, since the fastest is not the same in every process.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16), _cuda_products(device, static):
        yield


def in_formats(network: Callable[..., Tensor], device: torch.device, *, bfloat16: bool) -> Callable[..., Tensor]:
    """Return a network that runs by the policy above."""

    def call(*inputs: Tensor) -> Tensor:
        with number_formats(device, bfloat16=bfloat16):
            return network(*inputs)

    return call


def with_bfloat16_weights(network: nn.Module) -> nn.Module:
    """Return a copy to run under autocast, whose weights are cast once to what autocast casts them to in every call."""
    other = copy.deepcopy(network)
    for module, name in narrowed(other):
        parameter = module._parameters[name]
        if parameter is not None:
            parameter.data = parameter.data.to(torch.bfloat16)
    return other


def narrowed(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the parameters that autocast casts where they are used, as modules and names.

    Those of linear layers and convolutions, but for the layers that a module lists as `float32_layers`, and those that
    a module lists as `bfloat16_parameters`. Norms and spectral weights stay in float32.
    """
    exact = {
        part
        for module in network.modules()
        for name in getattr(module, "float32_layers", ())
        if getattr(module, name) is not None
        for part in getattr(module, name).modules()
    }
    found: list[tuple[nn.Module, str]] = []
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module not in exact:
            found += [(module, name) for name in module._parameters]
        found += [(module, name) for name in getattr(module, "bfloat16_parameters", ())]
    return found


@contextmanager
def _cuda_products(device: torch.device, static: bool) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True
    cudnn.benchmark = static and not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]

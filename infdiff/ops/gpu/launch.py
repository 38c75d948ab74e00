"""The one door to compiled code: whether it is open, why not, and launching a kernel.

A kernel runs on the current stream of the device that holds its tensors, so launches order like PyTorch's own and can
be captured in a CUDA graph once they have run (and been compiled) before.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from infdiff.ops.gpu.nvrtc import CompileError, compiler_versions, machine_code, parameters

# The number by which the sources know a type of features (SCALAR in cuda/features.cuh).
SCALARS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
THREADS = 128

Argument = Tensor | int | float | None

_C_TYPES: dict[str, Any] = {
    "int": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
_OLDEST_CAPABILITY = (8, 0)


def why_closed() -> str | None:
    """Return one sentence that says why no kernel can run here, or None when kernels run."""
    # Read at each call, so that a program or a test can switch.
    if os.environ.get("INFDIFF_KERNELS", "").lower() in ("off", "0"):
        return "they are switched off by INFDIFF_KERNELS=off"
    return _what_is_missing()


@cache
def _what_is_missing() -> str | None:
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    if torch.version.cuda is None:
        return "PyTorch was built for other devices than NVIDIA's"
    capability = torch.cuda.get_device_capability()
    if capability < _OLDEST_CAPABILITY:
        return f"the device is of compute capability {capability[0]}.{capability[1]}, older than 8.0"
    try:
        compiler_versions()
        _object_code(architecture(torch.cuda.current_device()), "lattice_index.cu", ())
    except CompileError as problem:
        return str(problem)
    except Exception as problem:  # an old driver, say: cuda-core has its own classes
        first_line = (str(problem).splitlines() or ["?"])[0]
        return (
            f"a first kernel could not be loaded ({first_line}); for a driver of CUDA 12: pip install 'infdiff[cuda12]'"
        )
    return None


def serves(features: Tensor) -> bool:
    """True for features that kernels take: on a CUDA device, in a type of SCALARS (float64 goes to the reference)."""
    return features.dtype in SCALARS and serves_points(features)


def serves_points(ids: Tensor) -> bool:
    """True for ids that kernels take: on a CUDA device where kernels run."""
    return ids.device.type == "cuda" and why_closed() is None


def architecture(device: int) -> str:
    """NVRTC's name of a device's architecture."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def launch(
    source: str, entry: str, defines: Mapping[str, int], grid: tuple[int, int, int], arguments: tuple[Argument, ...]
) -> None:
    """Run kernel `entry` of cuda/SOURCE, compiled with `defines`, on grid x THREADS threads.

    Tensors are passed as the addresses of their first elements, None as a null pointer.
    """
    from cuda.core import LaunchConfig
    from cuda.core import launch as launch_kernel

    device = next(a.device for a in arguments if isinstance(a, Tensor))
    kernel = _kernel(device.index, source, entry, tuple(sorted(defines.items())))
    with torch.cuda.device(device):
        stream = _Stream(torch.cuda.current_stream(device).cuda_stream)
        values = c_values(parameters(source, entry), arguments)
        launch_kernel(stream, LaunchConfig(grid=grid, block=THREADS), kernel, *values)


def c_values(kinds: tuple[str, ...], arguments: tuple[Argument, ...]) -> list[Any]:
    """Arguments as the kernel's parameters want them; pointers as plain integers."""
    values: list[Any] = []
    for kind, argument in zip(kinds, arguments, strict=True):
        if kind == "pointer" and (argument is None or isinstance(argument, Tensor)):
            values.append(0 if argument is None else argument.data_ptr())
        elif kind != "pointer" and isinstance(argument, int | float):
            values.append(_C_TYPES[kind](argument))
        else:
            raise TypeError(f"a parameter of kind {kind} cannot take {type(argument).__name__}")
    return values


class _Stream:
    """A CUDA stream's handle in the form that cuda-core takes."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


@cache
def _kernel(device: int, source: str, entry: str, defines: tuple[tuple[str, int], ...]) -> Any:
    return _object_code(architecture(device), source, defines).get_kernel(entry)


@cache
def _object_code(arch: str, source: str, defines: tuple[tuple[str, int], ...]) -> Any:
    # One image serves every device of an architecture: the driver loads it into each context by itself.
    from cuda.core import ObjectCode

    return ObjectCode.from_cubin(machine_code(source, dict(defines), arch), name=source)

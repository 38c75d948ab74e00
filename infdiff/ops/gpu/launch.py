"""The one door to compiled code: whether it is open, why not, and launching a kernel.

A kernel runs on the current stream of the device that holds its tensors, so launches order like PyTorch's own and can
be captured in a CUDA graph once they have run (and been compiled) before.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from infdiff.errors import UserError, first_line
from infdiff.ops.gpu.nvrtc import (
    CompileError,
    compiler_major,
    compiler_versions,
    driver_version,
    machine_code,
    parameters,
)

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
_BITS = {"int": 32, "int64": 64}
_OLDEST_CAPABILITY = (8, 0)
_LARGEST_GRID = (2**31 - 1, 65535, 65535)
_SHARED_MEMORY_OF_H100 = 227 * 1024

_bound = threading.local()  # devices: those whose context is bound to the thread


def why_closed(device: int | None = None) -> str | None:
    """Return one sentence that says why no kernel can run on a CUDA device, or None when kernels run.

    device: its number, by default the current one's.
    """
    # Read at each call, so that a program or a test can switch.
    if os.environ.get("INFDIFF_KERNELS", "").lower() in ("off", "0"):
        return "they are switched off by INFDIFF_KERNELS=off"
    if not torch.cuda.is_available():
        return f"PyTorch sees no CUDA device{_because_of_the_driver()}"
    if torch.version.cuda is None:
        return "PyTorch was built for other devices than NVIDIA's"
    return _what_is_missing(torch.cuda.current_device() if device is None else device)


@cache
def _what_is_missing(device: int) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_CAPABILITY:
        return f"the device is of compute capability {capability[0]}.{capability[1]}, older than 8.0"
    # In a thread of its own, which has no modes: the caller may be tracing, or computing with fake tensors.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(why_not_run, torch.device("cuda", device)).result()


def why_not_run(device: torch.device) -> str | None:
    """Compile, load and run a first kernel on a device: one sentence that says what failed, or None.

    Raises OutOfMemoryError, which passes.
    """
    try:
        compiler_versions()
        ids = torch.tensor([[1, 2, 5]], device=device)
        index = torch.empty((1, 2, 3), dtype=torch.int32, device=device)
        launch("lattice_index.cu", "lattice_index", {}, (1, 1, 1), (ids, index, 3, 6, 3))
        found = index.flatten().tolist()
    except torch.OutOfMemoryError:
        raise
    except CompileError as problem:
        return str(problem)
    except Exception as problem:  # cuda-core has classes of its own
        return f"a first kernel could not be run ({first_line(problem)}){_because_of_the_driver()}"
    return None if found == [-1, 0, 1, -1, -1, 2] else f"a first kernel's result was wrong: {found}"


def _because_of_the_driver() -> str:
    """The driver's fault and its remedy, as the end of a sentence; nothing for a driver that is new enough.

    A driver runs what was compiled for any CUDA of its own major version, and for earlier ones.
    """
    driver, built = driver_version(), torch.version.cuda
    if driver is None or built is None:
        return ""
    major, compiler = driver // 1000, compiler_major()
    known = f"the driver is for CUDA up to {major}.{driver % 1000 // 10}"
    if int(built.split(".")[0]) > major:
        return f": {known}, PyTorch for {built}; update the driver, or install a PyTorch for its CUDA"
    if compiler is not None and compiler > major:
        remedy = "pip install 'infdiff[cuda12]'" if major == 12 else "update the driver"
        return f": {known}, the compiler for {compiler}; {remedy}"
    return ""


def serves(features: Tensor) -> bool:
    """True for features that kernels take: on a CUDA device, in a type of SCALARS (float64 goes to the reference)."""
    return features.dtype in SCALARS and serves_points(features)


def serves_points(ids: Tensor) -> bool:
    """True for ids that kernels take: on a CUDA device where kernels run."""
    return ids.device.type == "cuda" and why_closed(ids.device.index) is None


def architecture(device: int) -> str:
    """NVRTC's name of a device's architecture."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def shared_memory(device: torch.device) -> int:
    """The most shared memory that a block can ask for on a CUDA device, in bytes; elsewhere that of an H100."""
    if device.type != "cuda":
        return _SHARED_MEMORY_OF_H100
    from cuda.core import Device

    return int(Device(device.index).properties.max_shared_memory_per_block_optin)


def launch(
    source: str,
    entry: str,
    defines: Mapping[str, int],
    grid: tuple[int, int, int],
    arguments: tuple[Argument, ...],
    shared: int = 0,
) -> None:
    """Run kernel `entry` of cuda/SOURCE, compiled with `defines`, on grid x THREADS threads.

    Tensors are passed as the addresses of their first elements, None as a null pointer. shared: bytes of shared memory
    that a block takes beyond what the source declares. Raises UserError for sizes that a launch cannot have.
    """
    from cuda.core import LaunchConfig
    from cuda.core import launch as launch_kernel

    if any(size > most for size, most in zip(grid, _LARGEST_GRID, strict=True)):
        raise UserError(f"a batch too large for one launch of {entry} ({grid} blocks): take fewer images at once")
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device(device):
        _bind_context(device.index)
        kernel = _kernel(device.index, source, entry, tuple(sorted(defines.items())), shared)
        stream = _Stream(torch.cuda.current_stream(device).cuda_stream)
        values = c_values(parameters(source, entry), arguments)
        launch_kernel(stream, LaunchConfig(grid=grid, block=THREADS, shmem_size=shared), kernel, *values)


def _bind_context(device: int) -> None:
    """Bind the device's primary context, which is PyTorch's, to this thread.

    PyTorch binds none where the device is the thread's current one anyway, until the runtime is called in that thread;
    but a launch is a call of the driver.
    """
    devices: set[int] = _bound.__dict__.setdefault("devices", set())
    if device not in devices:
        from cuda.core import Device

        Device(device).set_current()
        devices.add(device)


def c_values(kinds: tuple[str, ...], arguments: tuple[Argument, ...]) -> list[Any]:
    """Arguments as the kernel's parameters want them; pointers as plain integers.

    Raises UserError for a whole number that does not fit its parameter, which ctypes would wrap.
    """
    values: list[Any] = []
    for kind, argument in zip(kinds, arguments, strict=True):
        if kind == "pointer" and (argument is None or isinstance(argument, Tensor)):
            values.append(0 if argument is None else argument.data_ptr())
        elif kind != "pointer" and isinstance(argument, int | float):
            if kind in _BITS and not -(2 ** (_BITS[kind] - 1)) <= argument < 2 ** (_BITS[kind] - 1):
                raise UserError(
                    f"{argument} does not fit the {_BITS[kind]} bits of a kernel's parameter: take fewer or smaller "
                    "images at once"
                )
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
def _kernel(device: int, source: str, entry: str, defines: tuple[tuple[str, int], ...], shared: int) -> Any:
    kernel = _object_code(architecture(device), source, defines).get_kernel(entry)
    if shared:
        _allow_shared_memory(kernel, device, shared)
    return kernel


def _allow_shared_memory(kernel: Any, device: int, size: int) -> None:
    """Let a kernel's blocks take this many bytes: without leave, a device grants 48 KiB."""
    from cuda.bindings import driver

    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (error,) = driver.cuKernelSetAttribute(attribute, size, kernel.handle, device)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"a kernel may not take {size} bytes of shared memory: {error.name}")


@cache
def _object_code(arch: str, source: str, defines: tuple[tuple[str, int], ...]) -> Any:
    # One image serves every device of an architecture: the driver loads it into each context by itself.
    from cuda.core import ObjectCode

    return ObjectCode.from_cubin(machine_code(source, dict(defines), arch), name=source)

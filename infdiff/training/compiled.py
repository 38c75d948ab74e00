"""Networks through torch.compile: whether it works here, and where what it makes is kept."""

from __future__ import annotations

import os
import warnings
from functools import cache

import torch

from infdiff.errors import UserError, first_line
from infdiff.files import cache_folder, make_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code() -> None:
    """Have torch.compile keep its code in the package's cache, next to the kernels, where a restart finds it.

    `$TORCHINDUCTOR_CACHE_DIR` comes first; a folder that cannot be written to is left to PyTorch's own choice.
    """
    folder = cache_folder().absolute() / "inductor"
    try:
        make_folder(folder)
    except UserError:
        return
    # PyTorch puts its default into the variable as soon as an optimiser is made: a folder that a reboot empties.
    from torch._inductor.runtime.runtime_utils import default_cache_dir  # type: ignore[attr-defined] # it moves

    if os.environ.get(_VARIABLE) in (None, os.path.abspath(default_cache_dir())):
        os.environ[_VARIABLE] = str(folder)


@cache
def why_not_compiled(device: torch.device) -> str | None:
    """Return why torch.compile does not work on a device, or None where it does: it is tried once.

    It wants Triton and a C compiler on CUDA devices, and a C++ compiler on CPUs.
    """
    keep_compiled_code()
    quiet_about_tf32()
    # The compiler reads the gradients of weights, and those that are cast together (`narrow_weights`) keep none.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # the backend has many classes of its own
        return first_line(getattr(error, "inner_exception", error))
    return None


def quiet_about_tf32() -> None:
    """Silence the advice to allow TF32: `precision` says why products in float32 stay as they are."""
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (2 * x + 1).sum()

"""Other packages, to compare with."""

import contextlib
import importlib
import sys
import types
import warnings

import pytest


def library(name):
    """Import a module; where it cannot be had, skip the test with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{name} cannot be imported: {str(error).splitlines()[0]}")


@contextlib.contextmanager
def torchvision_or_stand_in():
    """Let torch-fidelity be imported.

    It imports torchvision, which is not there for every build of torch. Of that, what is tested here needs one function
    at most, so that a stand-in serves.
    """
    with contextlib.suppress(ImportError, RuntimeError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torchvision")
    stand_in = "torchvision.transforms.functional" not in sys.modules
    if stand_in:
        sys.modules |= torchvision()
    try:
        yield
    finally:
        # What was imported beside the stand-in goes with it.
        for name in [*sys.modules] if stand_in else []:
            if name.partition(".")[0] in ("torchvision", "torch_fidelity"):
                del sys.modules[name]


def torchvision():
    """Modules that stand in for torchvision's."""

    def normalize(x, mean, std, inplace):
        mean, std = (x.new_tensor(values)[:, None, None] for values in (mean, std))
        return (x - mean) / std

    names = ("", ".datasets", ".transforms", ".transforms.functional")
    modules = {f"torchvision{name}": types.ModuleType(f"torchvision{name}") for name in names}
    functional = modules["torchvision.transforms.functional"]
    functional.normalize = normalize
    modules["torchvision"].transforms = modules["torchvision.transforms"]
    modules["torchvision.transforms"].functional = functional
    for name in ("CIFAR10", "STL10", "CIFAR100"):
        setattr(modules["torchvision.datasets"], name, object)
    return modules

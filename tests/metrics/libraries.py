"""Other packages, to compare with."""

import importlib
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

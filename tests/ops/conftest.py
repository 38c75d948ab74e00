"""Shared by tests of operators: where a kernel runs."""

import pytest
import torch


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where kernels run: emulated on a CPU, or on a GPU."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
        return torch.device("cpu")
    return torch.device("cuda")

"""Deterministic algorithms are chosen for a run that asks for them, and for nothing else in the process."""

import os
from contextlib import suppress

import pytest
import torch

from infdiff.training.determinism import deterministic_algorithms
from tests.training.test_trainer import SETTINGS, make, objective


def chosen():
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_a_run_has_them_while_it_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []

    def noted(*arguments):
        seen.append((*chosen(), torch.backends.cudnn.benchmark, os.environ["CUBLAS_WORKSPACE_CONFIG"]))
        return objective(*arguments)

    make(tmp_path, SETTINGS.model_copy(update={"deterministic": True}), objective=noted).run()
    assert set(seen) == {(True, False, False, ":4096:8")}
    assert (*chosen(), torch.backends.cudnn.benchmark) == (False, False, True)


def test_a_run_that_does_not_ask_changes_nothing(tmp_path):
    seen = set()

    def noted(*arguments):
        seen.add((*chosen(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return objective(*arguments)

    make(tmp_path, objective=noted).run()
    assert seen == {(False, False, None)}


def test_what_was_chosen_before_is_back_after_an_error():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with suppress(RuntimeError), deterministic_algorithms(True):
            assert chosen() == (True, False)
            raise RuntimeError("stop")
        assert chosen() == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)

"""How commands fail: one line for what users, disks and memory cause, a traceback for our own faults."""

import os
import re
import zipfile

import pytest
import safetensors.torch
import torch

from infdiff import cli
from infdiff.errors import OptionError, UserError
from tests.conftest import restored_process


@pytest.fixture(autouse=True)
def process():
    with restored_process():
        yield


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda path: (path / "nowhere").read_text(), ["nowhere", "No such file"]),
        (lambda path: path.read_text(), ["Is a directory"]),
        (lambda path: safetensors.torch.load(b"12345678901234567890"), ["cannot read or write"]),
        (lambda path: b"\xff\xfe".decode(), ["UTF-8"]),
        (lambda path: torch.empty(1 << 60), ["out of memory", "--batch"]),
        (lambda path: bytearray(1 << 62), ["out of memory"]),
    ],
)
def test_what_the_machine_refuses_is_one_line(call, parts, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: call(tmp_path))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def fails_with(error, capsys, prog=""):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run(main, prog)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_errors_name_options_and_commands_as_they_were_given(capsys):
    error = OptionError("batch_size", 0, "want at least 1")
    assert fails_with(error, capsys) == "error: --batch-size 0: want at least 1\n"
    error = UserError("no run: train one with infdiff train")
    assert fails_with(error, capsys) == "error: no run: train one with infdiff train\n"
    script = "python scripts/sample.py"
    assert fails_with(error, capsys, script) == "error: no run: train one with python scripts/train.py\n"


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), zipfile.BadZipFile("x"), AssertionError()])
def test_our_own_faults_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        cli.run(main)


def test_products_of_matrices_can_be_deterministic_before_cuda_starts(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cli.choose_device("cpu").type == "cpu"
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert cli.choose_device("auto").type == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(("given", "part"), [("-3", "-3: want"), (str(2**63), "want"), ("1.5", "1.5: want")])
def test_a_seed_has_limits(given, part):
    parser = cli.Parser(prog="x")
    parser.add_seed()
    assert parser.parse_args(["--seed", str(2**63 - 1)]).seed == 2**63 - 1
    with pytest.raises(UserError, match=re.escape(part)):
        parser.parse_args(["--seed", given])

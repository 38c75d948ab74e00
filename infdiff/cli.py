"""Shared by all commands: help, device selection, error handling."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError

from infdiff.command_names import as_called
from infdiff.coordinates import Size, parse_size
from infdiff.errors import OptionError, ProcessGoneError, UserError, first_line
from infdiff.memory import retain_freed_memory
from infdiff.processes import Place

_LARGEST_SEED = 2**63 - 1


class Parser(argparse.ArgumentParser):
    """Argument parser whose help shows the command's docstring, examples included, as written."""

    def __init__(self, description: str | None = None, prog: str | None = None, **options: Any) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=raw, **options)

    def format_help(self) -> str:
        """The help, with commands written the way this one was called."""
        return as_called(super().format_help(), self.prog)

    def error(self, message: str) -> NoReturn:
        """Raise a one-line UserError instead of printing the usage."""
        raise UserError(f"{message} (see --help)")

    def add_device(self) -> None:
        """Add --device."""
        self.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="default: cuda if present")

    def add_seed(self, of: str = "all noise") -> None:
        """Add --seed. of: what it is the seed of."""
        self.add_argument("--seed", type=_seed, default=0, help=f"seed of {of} (default 0)")

    def add_run(self, checkpoint: str = "last (default), best, or a step") -> None:
        """Add --run and --checkpoint. checkpoint: the help of the latter."""
        self.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
        self.add_argument("--checkpoint", default="last", help=checkpoint)


def _seed(text: str) -> int:
    value = int(text) if text.lstrip("-").isdecimal() else -1
    if not 0 <= value <= _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text}: want a whole number from 0 to 2^63 - 1")
    return value


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda". Raises UserError when CUDA is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device", name, "no usable CUDA device here; use cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # Without it no product of matrices is deterministic (train.deterministic), and later is too late. It is the most
    # that cuBLAS takes by itself, 32 MiB.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


def size_argument(option: str, text: str) -> Size:
    """Return the size as `parse_size` does, with the option named in the error."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def numbers(option: str, text: str) -> list[float]:
    """Return the numbers of "1,2,4", none for an empty text. Raises UserError naming the option."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise UserError(f"{option} {text}: want numbers with commas between them, as in 1,2,4") from error


def output_file(option: str, path: Path | None) -> Path | None:
    """Return the path. Raises UserError naming the option when no file can be written there."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UserError(f"{option} {path}: want a file in a folder that exists")
    return path


def positive(option: str, value: int) -> int:
    """Return the value. Raises UserError naming the option when it is below 1."""
    if value < 1:
        raise UserError(f"{option} {value}: want at least 1")
    return value


def run(main: Callable[[], None], prog: str = "") -> None:
    """Run a command: bad input prints one line and exits with code 2; SIGTERM cleans up and exits with 143.

    prog: how the command was called, so that errors name other commands the same way.
    """
    retain_freed_memory()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        # What is wrong with the options or the data is so in every process: the first one says it. Where it may be gone
        # itself, the second one does, too.
        place = Place.here()
        second = place.rank == 1 and isinstance(error, ProcessGoneError)
        if place.first or second or not isinstance(error, UserError):
            where = "" if place.first else f" in process {place.rank}"
            print(f"error{where}: {as_called(message, prog)}", file=sys.stderr)
        sys.exit(2)


def explain(error: Exception) -> str | None:
    """One line about an error that the user, the disk or the memory caused; None for an error of this package."""
    match error:
        case OptionError():
            return error.as_flag()
        case UserError():
            return str(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror or first_line(error)}"
        case OSError() | SafetensorError():
            return f"cannot read or write a file: {first_line(error)}"
        case UnicodeDecodeError():
            return f"a file that should be text is not UTF-8: {first_line(error)}"
        case MemoryError() | torch.OutOfMemoryError():
            return _out_of_memory(error)
        case RuntimeError() if "DefaultCPUAllocator" in str(error):  # what PyTorch raises on a CPU
            return _out_of_memory(error)
    return None


def _out_of_memory(error: Exception) -> str:
    return f"out of memory: {first_line(error)}; try a smaller --batch or --res"

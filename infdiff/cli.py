"""What every script shares: its help, its device, its way to fail."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from infdiff.coordinates import Size, parse_size
from infdiff.errors import OptionError, UserError
from infdiff.memory import retain_freed_memory


class Parser(argparse.ArgumentParser):
    """Argument parser whose help shows the script's docstring, examples included, as written."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> None:  # type: ignore[override]
        """One line instead of the whole usage."""
        raise UserError(f"{message} (see --help)")

    def add_device(self) -> None:
        self.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="default: cuda if there")


def choose_device(name: str) -> torch.device:
    """ "auto" | "cpu" | "cuda" -> a device. Raises UserError when CUDA is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no usable CUDA device here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def size_argument(option: str, text: str) -> Size:
    """`parse_size`, with the option named in the error."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def numbers(option: str, text: str) -> list[float]:
    """ "1,2,4" -> the numbers, none of an empty text. Raises UserError naming the option."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise UserError(f"{option} {text}: want numbers with commas between them, as in 1,2,4") from error


def output_file(option: str, path: Path | None) -> Path | None:
    """The path, or UserError naming the option when no file can be written there. None stays None."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UserError(f"{option} {path}: want a file in a folder that exists")
    return path


def positive(option: str, value: int) -> int:
    """The value, or UserError naming the option when it is below 1."""
    if value < 1:
        raise UserError(f"{option} {value}: want at least 1")
    return value


def run(main: Callable[[], None]) -> None:
    """Run a script: bad input prints one line and exits with code 2; SIGTERM cleans up and exits with 143."""
    retain_freed_memory()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except OptionError as error:
        print(f"error: {error.as_flag()}", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        print(f"error: out of memory: {str(error).splitlines()[0]}; try a smaller --batch or --res", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)

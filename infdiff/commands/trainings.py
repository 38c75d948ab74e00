"""Lines that commands of several processes print once, and what these processes must agree on."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from infdiff import __version__, processes
from infdiff.config.files import flatten
from infdiff.config.settings import Config
from infdiff.errors import UserError


def say(line: str) -> None:
    """Print a line, once for all processes."""
    if processes.joined().first:
        print(line, flush=True)


def warn(line: str) -> None:
    """Print a line to standard error, once for all processes."""
    if processes.joined().first:
        print(line, file=sys.stderr, flush=True)


def describe_devices(device: torch.device) -> str:
    """Return a phrase for the devices of all processes."""
    count = processes.joined().count
    return str(device.type) if count == 1 else f"{count} x {device.type}"


def require_same_program(config: Config) -> None:
    """Raise UserError where processes have other settings, or other versions of the package or of PyTorch."""
    versions = f"infdiff {__version__}, torch {torch.__version__}"
    if not processes.same_everywhere(versions):
        raise UserError(f"the processes have different versions; the first has {versions}: install the same everywhere")
    require_same_options(flatten(config))


def require_same_options(options: Mapping[str, Any]) -> None:
    """Raise UserError where processes have other options."""
    if not processes.same_everywhere(json.dumps(options, default=str, sort_keys=True)):
        raise UserError("the processes have different settings: give every machine the same command and files")

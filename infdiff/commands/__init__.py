"""The command line: `infdiff COMMAND`, and the same commands as scripts of a checkout.

Each module here holds one command as `main(arguments, program)`. It is imported, with PyTorch, when it is called.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from infdiff import __version__
from infdiff.command_names import COMMANDS, module_of

# What the processes of torchrun do together.
SHARED = ("train", "train-latent", "sample", "evaluate")

_WIDTH = max(map(len, COMMANDS))
OVERVIEW = "\n".join(
    [
        "Diffusion models over functions: train on part of the pixels, sample at any size.",
        "",
        "usage: infdiff COMMAND ...",
        "",
        *(f"  {name:<{_WIDTH}}  {line}" for name, line in COMMANDS.items()),
        "",
        "infdiff COMMAND --help says more, with examples.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `infdiff` with these arguments, by default those of the process."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(f"{OVERVIEW}\n")
    elif given[0] in ("-V", "--version"):
        sys.stdout.write(f"infdiff {__version__}\n")
    elif given[0] in COMMANDS:
        start(given[0], given[1:], f"infdiff {given[0]}")
    else:
        near = difflib.get_close_matches(given[0].replace("_", "-"), COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "infdiff --help lists them"
        sys.stderr.write(f"error: unknown command {given[0]!r}; {hint}\n")
        sys.exit(2)


def script(name: str) -> None:
    """Run scripts/NAME.py of a checkout with the arguments of the process."""
    start(name, sys.argv[1:], f"python scripts/{module_of(name)}.py")


def start(name: str, arguments: Sequence[str], program: str) -> None:
    """Run one command, as `cli.run` does: bad input is one line. program: how it was called, for its help."""
    command = importlib.import_module(f"infdiff.commands.{module_of(name)}")
    if name == "doctor":  # reports a PyTorch that does not load, which `cli` needs
        command.main(arguments, program)
        return
    from infdiff.cli import run
    from infdiff.processes import require_one_process

    def call() -> None:
        if name not in SHARED:
            require_one_process(program)
        command.main(arguments, program)

    run(call, program)

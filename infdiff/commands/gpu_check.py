"""The command `infdiff gpu-check`."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from infdiff.cli import Parser
from infdiff.errors import OptionError, UserError
from infdiff.files import save_text
from infdiff.gpu_check.figures import table
from infdiff.gpu_check.parts import Part, all_parts
from infdiff.gpu_check.run import outcome_of, run_parts
from infdiff.ops.gpu import launch

DESCRIPTION = """Check and measure infdiff on a GPU, in about ten minutes.

  infdiff gpu-check                                # everything that is not done yet, then one table
  infdiff gpu-check --parts ops,train --again      # these parts once more
  infdiff gpu-check --data photos.lmdb             # trains on these images, not on the embedded faces
  infdiff gpu-check --dry-run                      # the parts and their commands; needs no GPU

Each part is a process of its own with a limit of time; its output is FOLDER/PART.txt, its numbers are FOLDER/PART.json.
No failure stops the next part. The exit code is 0 when all laws hold, however slow it was, 1 when one does not or a
part crashed, and 2 on bad input or without a GPU.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff gpu-check`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(DESCRIPTION, prog or "infdiff gpu-check")
    names = ", ".join(part.name for part in all_parts(Path()))
    parser.add_argument("--parts", default="", metavar="A,B", help=f"only these of {names}")
    parser.add_argument("--again", action="store_true", help="also run parts that are done")
    parser.add_argument("--data", help="images of the real training (default: the embedded demo faces)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu_check"), metavar="FOLDER", help="default %(default)s"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the parts and their commands, and run nothing")
    return parser


def run(arguments: Namespace) -> None:
    """Run the parts that are asked for, and show the table of all."""
    folder = arguments.out.absolute()
    parts = all_parts(folder, arguments.data)
    chosen = _chosen(parts, arguments.parts)
    if arguments.dry_run:
        for part in chosen:
            print(f"{part.name} ({part.limit} s{'; ' + part.missing if part.missing else ''}): {part.about}")
            print(f"    {shlex.join(part.command)}")
        return
    if not torch.cuda.is_available():
        raise UserError(f"there is no GPU to check: {launch.why_closed()}")
    run_parts(chosen, folder, again=arguments.again, say=lambda line: print(line, flush=True))
    shown = table(parts, folder)
    save_text(folder / "table.txt", f"{shown}\n")
    print(f"\n{shown}\n\nin {folder / 'table.txt'}")
    outcomes = ((part, outcome_of(part, folder)) for part in parts)
    sys.exit(1 if any(outcome is not None and outcome.breaks_a_law(part) for part, outcome in outcomes) else 0)


def _chosen(parts: Sequence[Part], text: str) -> list[Part]:
    known, asked = {part.name for part in parts}, [name for name in text.split(",") if name]
    for name in asked:
        if name not in known:
            raise OptionError("parts", text, f"no part {name}: want some of {', '.join(part.name for part in parts)}")
    return [part for part in parts if not asked or part.name in asked]

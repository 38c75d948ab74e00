"""Measure how fast infdiff is on this machine.

  python scripts/benchmark.py ops                   # every operator, in minutes
  python scripts/benchmark.py ops --quick           # a handful of cases, in seconds
  python scripts/benchmark.py ops --help            # what can be chosen, with more examples

The numbers are printed as a table; with --json FILE they are kept, too.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from infdiff import __version__
from infdiff.cli import Parser, choose_device, positive, run
from infdiff.errors import UserError
from infdiff.eval import operators, table, timing

OPS = """Time every operator with every backend that runs here, forward and with backward.

  python scripts/benchmark.py ops                                   # the whole sweep, three minutes on two CPU cores
  python scripts/benchmark.py ops --quick --device cpu
  python scripts/benchmark.py ops --only sparse_depthwise_conv2d --repeat 50 --json conv.json
  python scripts/benchmark.py ops --quick --profile trace.json      # to be opened in ui.perfetto.dev

Each case is timed with all that depends on coordinates alone handed over: ids, index, neighbours, counts.
"""


class Command(Parser):
    """The parser of one subcommand."""

    def __init__(self, description: str | None = None, prog: str | None = None, **options: Any) -> None:
        super().__init__(description)
        self.prog = prog or self.prog


def main() -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT", dest="WHAT", parser_class=Command)
    command = commands.add_parser("ops", help="the operators on points", description=OPS)
    command.add_argument("--quick", action="store_true", help="only a handful of cases")
    command.add_argument("--only", choices=operators.OPERATORS, metavar="NAME", help=", ".join(operators.OPERATORS))
    command.add_argument("--repeat", type=int, default=20, help="times that a call is timed, if fast (default 20)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and where they were measured")
    command.add_argument("--profile", type=Path, metavar="FILE", help="write a Chrome trace of one pass over the cases")
    command.add_argument("--seed", type=int, default=0, help="of points, features and taps (default 0)")
    command.add_device()
    command.set_defaults(call=time_operators)
    arguments = parser.parse_args()
    arguments.call(arguments)


def time_operators(arguments: Namespace) -> None:
    """`benchmark.py ops`."""
    repeat, seed = positive("--repeat", arguments.repeat), arguments.seed
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: want 0 to 2^63 - 1")
    for option, path in {"--json": arguments.json, "--profile": arguments.profile}.items():
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UserError(f"{option} {path}: want a file in a folder that exists")
    device = choose_device(arguments.device)
    plan = (operators.QUICK_PLANS if arguments.quick else operators.PLANS)[device.type]
    pairs, left_out = timing.split(operators.cases_of(plan, arguments.only), device)
    copy = timing.copy_bandwidth(device) if device.type == "cuda" else None
    with tqdm(total=len(pairs), unit="case", disable=None) as bar:
        rows, too_large = timing.time_cases(pairs, device, seed, repeat, bar.update)
    left_out += too_large
    about = {"infdiff": __version__} | table.environment(device, seed, repeat)
    if arguments.json is not None:
        table.save_json(arguments.json, about, rows, left_out, copy)
    if arguments.profile is not None:
        timing.trace(pairs, device, seed, arguments.profile)
    print(table.as_text(about, rows, left_out, copy))


if __name__ == "__main__":
    run(main)

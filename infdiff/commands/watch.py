"""Show a run in a browser while it trains: loss, learning rate, images/s, time left, samples and evaluations.

  infdiff watch                                 # the newest run, at http://127.0.0.1:8738/
  infdiff watch --run runs/photos --port 0      # any free port

The page refreshes by itself, answers on this machine alone, and only reads. Reports that `infdiff evaluate --report`
wrote into the run's folder are linked.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from infdiff.cli import Parser
from infdiff.runs.folder import RunFolder
from infdiff.watch.serve import make_server

PORT = 8738


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff watch`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff watch")
    parser.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 for any that is free (default {PORT})")
    return parser


def run(arguments: Namespace) -> None:
    """Serve the page until interrupted."""
    folder = RunFolder(arguments.run) if arguments.run else RunFolder.newest()
    server = make_server(folder, arguments.port)
    print(f"{folder}: {server.url} (Ctrl-C ends)", flush=True)
    server.serve_until_interrupted(print)

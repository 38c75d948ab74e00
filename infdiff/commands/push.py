"""Send an exported model to the Hugging Face Hub.

  infdiff export runs/photos photos-model
  infdiff push photos-model OWNER/NAME --private

In Python, infdiff.load("hf://OWNER/NAME") is the model again. Log in first with `hf auth login`, or set HF_TOKEN.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from infdiff.cli import Parser
from infdiff.runs.hub import push


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff push`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff push")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what infdiff export wrote")
    parser.add_argument("name", metavar="NAME", help="OWNER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", help="make it private, if it is new")
    return parser


def run(arguments: Namespace) -> None:
    """Push a folder."""
    print(push(arguments.folder, arguments.name, private=arguments.private))

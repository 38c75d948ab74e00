"""Write what is needed to use a trained model, and no more: weights, settings and a model card.

  infdiff export runs/photos photos-model
  infdiff export runs/photos photos-model --checkpoint best --license cc-by-4.0

The folder holds config.yaml, safetensors and README.md. `infdiff push` sends it to the Hugging Face Hub.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from infdiff.cli import Parser
from infdiff.runs.library import Model


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff export`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff export")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write, new or empty")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--license", help="of the model, as the Hub names it: mit, cc-by-4.0, ... (default: unknown)")
    parser.add_device()
    return parser


def run(arguments: Namespace) -> None:
    """Export a run."""
    model = Model.load(arguments.run, arguments.device, arguments.checkpoint)
    folder = model.export(arguments.folder, license=arguments.license)
    print(f"{folder}: step {model.trained.step} of {arguments.run}; read its README.md before you share it")

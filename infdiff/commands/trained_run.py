"""Shared by the commands that use a trained run: which one, and what a record says about it."""

from argparse import Namespace
from typing import Any

import torch

from infdiff import __version__
from infdiff.cli import Parser, choose_device
from infdiff.config.settings import DEBLURS
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel


def add_deblur(parser: Parser) -> None:
    """Add the option that says what becomes of the mollifier's blur."""
    parser.add_argument(
        "--deblur", choices=DEBLURS, help="network: its own output; wiener: a filter; none: T x_0 (default: the best)"
    )


def load_run(arguments: Namespace) -> TrainedModel:
    """Load the checkpoint that --run, --checkpoint and --device name, by default the newest run's last one."""
    folder = arguments.run or RunFolder.newest().path
    return TrainedModel.load(folder, choose_device(arguments.device), arguments.checkpoint)


def origin(trained: TrainedModel) -> dict[str, Any]:
    """The run, the step and the versions that images came from, for the record next to them."""
    return {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}

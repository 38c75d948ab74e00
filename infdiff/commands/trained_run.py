"""Shared by the commands that use a trained run: which one, and what a record says about it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff import __version__
from infdiff.cli import Parser, choose_device
from infdiff.config.settings import DEBLURS
from infdiff.images.field_files import FIELD_FORMS, read_field
from infdiff.images.read import read_image
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel


def add_deblur(parser: Parser) -> None:
    """Add the option that says what becomes of the mollifier's blur."""
    parser.add_argument(
        "--deblur", choices=DEBLURS, help="network: its own output; wiener: a filter; none: T x_0 (default: the best)"
    )


def add_format(parser: Parser) -> None:
    """Add the option that says which files fields are written in."""
    parser.add_argument("--format", choices=FIELD_FORMS, help="of fields, in their units: npy (default) or tif")


def load_run(arguments: Namespace) -> TrainedModel:
    """Load the checkpoint that --run, --checkpoint and --device name, by default the newest run's last one."""
    folder = arguments.run or RunFolder.newest().path
    return TrainedModel.load(folder, choose_device(arguments.device), arguments.checkpoint)


def read_given(trained: TrainedModel, option: str, path: Path) -> Tensor:
    """Read an image as the run's data set holds it: (1, 3, H, W) uint8, or of a field (1, C, H, W), normalised."""
    if trained.field is None:
        return read_image(option, path)
    return trained.field.normalised(read_field(option, path, trained.field.channels))[None]


def origin(trained: TrainedModel) -> dict[str, Any]:
    """The run, the step and the versions that images came from, for the record next to them."""
    return {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}

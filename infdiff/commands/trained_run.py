"""Shared by the commands that use a trained run: which one, and what a record says about it."""

from argparse import Namespace
from typing import Any

import torch

from infdiff import __version__
from infdiff.cli import choose_device
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel


def load_run(arguments: Namespace) -> TrainedModel:
    """Load the checkpoint that --run, --checkpoint and --device name, by default the newest run's last one."""
    folder = arguments.run or RunFolder.newest().path
    return TrainedModel.load(folder, choose_device(arguments.device), arguments.checkpoint)


def origin(trained: TrainedModel) -> dict[str, Any]:
    """The run, the step and the versions that images came from, for the record next to them."""
    return {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}

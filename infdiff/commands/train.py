"""Train ∞-Diff on a random part of each image's pixels, or DFU on images of several sizes.

  infdiff train --subsample 4                                              # the embedded demo faces
  infdiff train --data photos --subsample 4 --out runs/photos              # a folder or zip of images
  infdiff train --config landscapes_64 --data photos.lmdb --subsample 4    # what prepare-data wrote
  infdiff train --config dfu_landscapes_64 --data photos.lmdb
  infdiff train --finetune runs/dfu_ffhq_96 --config dfu_finetune_160 --data ffhq.lmdb
  infdiff train --config ffhq_256 --data ffhq.lmdb train.batch_size=16 train.accumulate=2
  infdiff train --config dfu_landscapes_64 --dry-run
  torchrun --nproc-per-node 8 -m -- infdiff train --config ffhq_256 --data ffhq.lmdb     # on 8 GPUs (docs/clusters.md)

The run directory holds everything. The same command again continues where it stopped.
Validation and previews take at most about a tenth of the time, and the progress bar says when they run.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from infdiff import processes
from infdiff.benchmark.dry_run import dry_run
from infdiff.cli import Parser, choose_device
from infdiff.commands.trainings import describe_devices, require_same_program, say, warn
from infdiff.config.files import load_config
from infdiff.config.settings import Config
from infdiff.errors import OptionError
from infdiff.methods.checks import (
    backend_note,
    check_config,
    check_processes,
    config_warnings,
    density_note,
    kernels_note,
)
from infdiff.methods.sizes import describe_points, training_weights
from infdiff.runs.data import build_data
from infdiff.runs.folder import RUNS, RunFolder
from infdiff.runs.opening import open_run, settled
from infdiff.runs.owner import owning
from infdiff.runs.training import build_trainer
from infdiff.trackers import require_trackers
from infdiff.training.trainer import Trainer


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff train`."""
    run(make_parser(prog).parse_intermixed_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff train")
    parser.add_argument("--config", default="demo", help="YAML file, or the name of a shipped one (default demo)")
    parser.add_argument("--data", help="LMDB from prepare-data, a folder or a zip (default: the embedded demo faces)")
    parser.add_argument(
        "--subsample", metavar="RATE", help="train on one pixel in 4; or 1:1,4:6: on all in 1 of 7 steps, 1/4 in 6 of 7"
    )
    parser.add_argument("--finetune", metavar="RUN", help="start from the EMA weights of a DFU run, for a larger size")
    parser.add_argument("--out", type=Path, help="run directory (default runs/NAME)")
    parser.add_argument("--dry-run", action="store_true", help="describe the training and try two steps; write nothing")
    parser.add_argument("--force", action="store_true", help="train in a folder where another process trains")
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--seed", type=int, help="seed of weights, order and noise")
    parser.add_device()
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="any setting of the configuration")
    return parser


def subsample(text: str) -> float | dict[str, float]:
    """Return what --subsample means: a rate, or the weight of each of several.

    Raises OptionError for anything else.
    """
    try:
        if ":" not in text:
            return float(text)
        pairs = [part.split(":") for part in text.split(",")]
        return {f"{float(rate):g}": float(weight) for rate, weight in pairs}
    except ValueError as error:
        raise OptionError("subsample", text, "want a rate, as 4, or rates with weights, as 1:1,4:6") from error


def run(arguments: Namespace) -> None:
    """Train the run that the options name, from its last checkpoint if there is one, on all processes of torchrun."""
    # What is wrong with the settings is so in every process, and is said before they meet.
    config = _config(arguments)
    check_processes(config, processes.Place.here().count)
    processes.select_gpu()
    device = choose_device(arguments.device)
    with processes.together(device):
        _run(arguments, config, device)


def _config(arguments: Namespace) -> Config:
    options = {
        "data.path": arguments.data,
        "train.subsample": None if arguments.subsample is None else subsample(arguments.subsample),
        "train.steps": arguments.steps,
        "seed": arguments.seed,
        "finetune.run": arguments.finetune,
    }
    # Written as JSON, which is YAML: a path may look like a number or hold a #.
    given = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items() if value is not None]
    config = load_config(arguments.config, [*given, *arguments.overrides])
    check_config(config)
    require_trackers(config.train.log, "train")
    return config


def _run(arguments: Namespace, config: Config, device: torch.device) -> None:
    require_same_program(config)
    with processes.first_before_others():
        config = settled(config, say)
    for warning in config_warnings(config):
        warn(f"warning: {warning}")
    config.train.check_device(device)
    data = build_data(config, device)
    if arguments.dry_run:
        if processes.joined().first:
            with processes.apart():
                dry_run(config, data, device, print)
        return
    folder = arguments.out or RUNS / config.name
    RunFolder(folder).check_for_training(config)
    with owning(folder, force=arguments.force, say=warn):
        # First what may fail: a folder with a configuration refuses another one.
        trainer = build_trainer(config, data, folder, device)
        with processes.first_before_others():
            open_run(folder, config)
        train(trainer, config, len(data.train))


def train(trainer: Trainer, config: Config, count: int) -> None:
    """Say what is trained on how many images, and train."""
    parameters = sum(p.numel() for module in trainer.modules.values() for p in module.parameters())
    images = f"{count} images, {describe_points(config)}"
    say(f"{trainer.folder}: {parameters:,} parameters, {images}, on {describe_devices(trainer.device)}")
    notes = density_note(config), backend_note(config, training_weights(config)), kernels_note(trainer.device)
    for note in filter(None, notes):
        say(f"note: {note}")
    trainer.run()
    images = f", images in {trainer.folder / 'samples'}" if any((trainer.folder / "samples").iterdir()) else ""
    say(f"{trainer.folder}: {trainer.step} steps done{images}")

"""Train ∞-Diff on a random part of each image's pixels, or DFU on images of several sizes.

  python scripts/train.py --subsample 4                                   # the embedded demo faces
  python scripts/train.py --config configs/landscapes_64.yaml --data photos.lmdb --subsample 4 --out runs/photos
  python scripts/train.py --config configs/dfu_landscapes_64.yaml --data photos.lmdb
  python scripts/train.py --finetune runs/dfu_ffhq_96 --config configs/dfu_finetune_160.yaml --data ffhq.lmdb
  python scripts/train.py --config configs/ffhq_256.yaml --data ffhq.lmdb train.batch_size=16 train.accumulate=2

  python scripts/train.py --config configs/dfu_landscapes_64.yaml --dry-run

Everything is kept in the run directory. The same command again continues where it stopped.
"""

import sys
from pathlib import Path

from infdiff.benchmark.dry_run import dry_run
from infdiff.cli import Parser, choose_device, run
from infdiff.config import CONFIG_FOLDER, load_config
from infdiff.methods.checks import check_config, config_warnings
from infdiff.methods.sizes import describe_points
from infdiff.runs.data import build_data
from infdiff.runs.trained import RUNS, open_for_training
from infdiff.runs.training import build_trainer


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default=CONFIG_FOLDER / "demo.yaml", help="YAML file (default configs/demo.yaml)")
    parser.add_argument("--data", help="LMDB from prepare_data.py (default: the embedded demo faces)")
    parser.add_argument("--subsample", type=float, help="train on one pixel in this many")
    parser.add_argument("--finetune", metavar="RUN", help="start from a DFU run's weights, for a size beyond its own")
    parser.add_argument("--out", type=Path, help="run directory (default runs/NAME)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, train two steps, keep nothing"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--seed", type=int, help="of weights, order and noise")
    parser.add_device()
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="any setting of the configuration")
    arguments = parser.parse_intermixed_args()
    options = {
        "data.path": arguments.data,
        "train.subsample": arguments.subsample,
        "train.steps": arguments.steps,
        "seed": arguments.seed,
        "finetune.run": arguments.finetune,
    }
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    config = load_config(arguments.config, [*given, *arguments.overrides])
    check_config(config)
    for warning in config_warnings(config):
        print(f"warning: {warning}", file=sys.stderr)
    device = choose_device(arguments.device)
    data = build_data(config, device)
    if arguments.dry_run:
        dry_run(config, data, device, print)
        return
    folder = arguments.out or RUNS / config.name
    open_for_training(folder, config)
    trainer = build_trainer(config, data, folder, device)
    parameters = sum(p.numel() for module in trainer.modules.values() for p in module.parameters())
    images = f"{len(data.train)} images, {describe_points(config)}"
    print(f"{folder}: {parameters:,} parameters, {images}, on {device}", flush=True)
    trainer.run()
    print(f"{folder}: {trainer.step} steps done, pictures in {folder / 'samples'}")


if __name__ == "__main__":
    run(main)

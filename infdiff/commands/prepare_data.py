"""Turn a folder, a zip or an LSUN-style LMDB of images into one LMDB for training.

  infdiff prepare-data ~/photos --out photos.lmdb --size 256
  infdiff prepare-data photos.zip --out crops.lmdb --size 128 --crops 16 --format webp
  infdiff prepare-data ~/photos --out native.lmdb --size 720x1440 --format tiles
  infdiff prepare-data church_outdoor_train_lmdb --out church.lmdb --size 256 --format jpeg

Unreadable images are counted, listed and left out. The output appears only once it is complete.
"""

import os
from argparse import Namespace
from collections.abc import Sequence

from infdiff.cli import Parser, positive, size_argument
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import FORMATS, ImageStore


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff prepare-data`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff prepare-data")
    parser.add_argument("source", metavar="SRC", help="folder (searched recursively), zip, or LMDB")
    parser.add_argument("--out", required=True, metavar="FILE", help="the LMDB file to write")
    parser.add_argument("--size", default="256", help="256, 192x256 (height x width), or native (default 256)")
    parser.add_argument("--crops", type=int, default=0, help="random crops of each image; 0: one centre crop (default)")
    parser.add_argument("--min-crop", type=float, default=0.5, help="smallest random crop, as a part of the largest")
    parser.add_argument(
        "--format",
        default="png",
        choices=FORMATS,
        help="png, webp, raw, tiles: lossless; jpeg: quality 95; tiles: for large images that are seen at few points",
    )
    parser.add_argument("--tile", type=int, default=0, help="side of the tiles of --format tiles (default 64 pixels)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--min-side", type=int, default=8, help="leave out images with a shorter side (default 8)")
    parser.add_argument(
        "--max-pixels", type=int, default=200_000_000, help="leave out larger images (default 200 million)"
    )
    parser.add_seed("the random crops")
    return parser


def run(arguments: Namespace) -> None:
    """Prepare a data set and list the images that were left out."""
    recipe = Recipe(
        size=None if arguments.size == "native" else size_argument("--size", arguments.size),
        crops=arguments.crops,
        min_crop=arguments.min_crop,
        format=arguments.format,
        min_side=arguments.min_side,
        max_pixels=arguments.max_pixels,
        seed=arguments.seed,
        tile=arguments.tile,
    )
    source = open_source(arguments.source)
    result = prepare(
        source, arguments.out, recipe, workers=min(positive("--workers", arguments.workers), len(source.names))
    )
    for name, reason in result.left_out:
        print(f"left out: {name}: {reason}")
    store = ImageStore(arguments.out)
    print(f"{arguments.out}: {len(store)} images from {len(source.names)} files, {len(result.left_out)} left out")

"""Turn a folder, a zip or an LSUN-style LMDB of images or fields into one LMDB for training.

  infdiff prepare-data ~/photos --out photos.lmdb --size 256
  infdiff prepare-data photos.zip --out crops.lmdb --size 128 --crops 16 --format webp
  infdiff prepare-data ~/photos --out native.lmdb --size 720x1440 --format tiles
  infdiff prepare-data ~/photos --out photos.lmdb --size 256 --shards 64    # a folder of files, written by all cores
  infdiff prepare-data church_outdoor_train_lmdb --out church.lmdb --size 256 --format jpeg
  infdiff prepare-data ~/pets --out pets.lmdb --size 64 --labels folders
  infdiff prepare-data radar --out radar.lmdb --size 128 --units mm/h --missing -1 --normalise quantile
  infdiff prepare-data wind.zip --out wind.lmdb --size native --layout chw --names u,v --units m/s,m/s

Fields are .npy and .npz arrays, and images of more than 8 bits: any channels, real values, pixels that are missing
(NaN, --missing, or a mask a.mask.png next to a.npy, 0 where missing). They keep their values; --normalise says what
networks see. With it, 8-bit images keep their channels as they are, too; --rgb makes 8-bit RGB of deep images.

Unreadable images are counted, listed and left out. The output appears only once it is complete.
"""

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from infdiff.cli import Parser, positive, size_argument
from infdiff.data.extent import Extent
from infdiff.data.label_files import SourceLabels, read_labels
from infdiff.data.normalisation import NORMALISATIONS
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.prepare_fields import (
    FieldOptions,
    Prepared,
    fields_of,
    prepare_fields,
    without_arrays,
    without_masks,
)
from infdiff.data.sources import Source, open_source
from infdiff.data.store import FORMATS, ImageStore
from infdiff.errors import OptionError
from infdiff.images.field_files import LAYOUTS

# Options that go with fields alone.
_OF_FIELDS = ("normalise", "layout", "key", "missing", "min_valid", "units", "names", "extent")


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff prepare-data`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff prepare-data")
    parser.add_argument("source", metavar="SRC", help="folder (searched recursively), zip, or LMDB")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the LMDB file to write, or with --shards the folder"
    )
    parser.add_argument("--size", default="256", help="256, 192x256 (height x width), or native (default 256)")
    parser.add_argument("--crops", type=int, default=0, help="random crops of each image; 0: one centre crop (default)")
    parser.add_argument("--min-crop", type=float, default=0.5, help="smallest random crop, as a part of the largest")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="png (default), webp, raw, tiles: lossless; jpeg: quality 95; tiles: for large images seen at few points",
    )
    parser.add_argument("--tile", type=int, default=0, help="side of the tiles of --format tiles (default 64 pixels)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument(
        "--shards", type=int, default=0, help="files of a folder --out, each written by one process (default: one file)"
    )
    parser.add_argument("--min-side", type=int, default=8, help="leave out images with a shorter side (default 8)")
    parser.add_argument(
        "--max-pixels", type=int, default=200_000_000, help="leave out larger images (default 200 million)"
    )
    parser.add_seed("the random crops")
    parser.add_argument("--rgb", action="store_true", help="reduce images of more than 8 bits to RGB")
    parser.add_argument(
        "--labels", metavar="CSV", help="file name, then a class or numbers, a line each; or: folders, each a class"
    )
    fields = parser.add_argument_group("fields")
    fields.add_argument("--normalise", choices=NORMALISATIONS, help="of each channel over all images (default minmax)")
    fields.add_argument("--layout", choices=LAYOUTS, help="of arrays: channels first or last (default: guessed)")
    fields.add_argument("--key", help="the array of each .npz (default: the only one)")
    fields.add_argument("--missing", type=float, metavar="VALUE", help="a value that stands for none, as NaN does")
    fields.add_argument("--min-valid", type=float, metavar="PART", help="leave out images with fewer valid pixels")
    fields.add_argument("--units", metavar="A,B", help="of each channel")
    fields.add_argument("--names", metavar="A,B", help="of each channel")
    fields.add_argument("--extent", metavar="512km", help="width of a stored field, for distances in evaluations")
    return parser


def run(arguments: Namespace) -> None:
    """Prepare a data set and list the images that were left out."""
    recipe = Recipe(
        size=None if arguments.size == "native" else size_argument("--size", arguments.size),
        crops=arguments.crops,
        min_crop=arguments.min_crop,
        format=arguments.format or FORMATS[0],
        min_side=arguments.min_side,
        max_pixels=arguments.max_pixels,
        seed=arguments.seed,
        tile=arguments.tile,
    )
    source = open_source(arguments.source)
    workers = min(positive("--workers", arguments.workers), len(source.names))
    options = field_options(arguments, source)
    if arguments.shards < 0:
        raise OptionError("shards", arguments.shards, "want 1 or more, or 0: one file")
    if options is None:
        source = without_arrays(source)
        names, labels = source.names, labels_of(arguments, source.names)
        done = prepare(source, arguments.out, recipe, labels=labels, workers=workers, shards=arguments.shards)
        left_out = done.left_out
    else:
        names = without_masks(source.names)[0]
        labels = labels_of(arguments, names)
        prepared = prepare_fields(
            source, arguments.out, recipe, options, labels=labels, workers=workers, shards=arguments.shards
        )
        left_out = prepared.left_out
    for name, reason in left_out:
        print(f"left out: {name}: {reason}")
    if options is not None:
        for line in described(prepared):
            print(line)
    store = ImageStore(arguments.out)
    if store.labels is not None:
        print(f"labels: {store.labels.describe()}")
    print(f"{arguments.out}: {len(store)} images from {len(names)} files, {len(left_out)} left out")


def labels_of(arguments: Namespace, names: Sequence[str]) -> SourceLabels | None:
    """Return the labels of images by their names; None where none are asked for."""
    return None if arguments.labels is None else read_labels(arguments.labels, names)


def field_options(arguments: Namespace, source: Source) -> FieldOptions | None:
    """Return how a source is read as fields; None for one of 8-bit images.

    Raises OptionError for options that do not go together.
    """
    given: dict[str, Any] = {name: value for name in _OF_FIELDS if (value := getattr(arguments, name)) is not None}
    if arguments.rgb or ("normalise" not in given and fields_of(source) is None):
        for name, value in given.items():
            problem = "does not go with --rgb" if arguments.rgb else "goes with fields: give --normalise, too"
            raise OptionError(name, value, problem)
        return None
    if arguments.format is not None:
        raise OptionError("format", arguments.format, "goes with RGB images: fields are stored as they are")
    given |= {name: tuple(given[name].split(",")) for name in ("units", "names") if name in given}
    if arguments.extent is not None:
        if arguments.crops and arguments.min_crop < 1:
            raise OptionError("extent", arguments.extent, "random crops have many widths: give --min-crop 1, too")
        given["extent"] = Extent.parse(arguments.extent)
    return FieldOptions(**given)


def described(prepared: Prepared) -> Iterator[str]:
    """Yield lines about the form of fields, and about the values that networks will see."""
    field = prepared.description
    layout = {"hw": "one channel", "chw": "channels first", "hwc": "channels last"}[prepared.layout]
    yield f"fields of {field.channels} channels ({layout}), stored as {field.dtype}"
    if field.fewest is not None:
        yield f"missing pixels: the image with the most of them has {field.fewest} valid ones"
    for channel, (low, high) in enumerate(field.limits):
        yield f"{field.label(channel)}: normalised ({field.normalisation.kind}) to {low:.4g} to {high:.4g}"
    yield f"root mean square of normalised values: {field.rms:.3g}, which data_std should be near"

"""Fill a masked part of an image with content from a trained model.

  infdiff inpaint --input photo.png --mask mask.png
  infdiff inpaint --run runs/photos --input photo.png --mask mask.png --n 4 --variety 0.5 --out filled

White pixels of the mask are filled; the mask has the image's size and any mode. The other pixels stay exactly as they
are, unless --no-paste is given. Variant i depends on the seed and i alone.

guided (the default up to the run's training size) fills the image at its own size. windows (beyond it) fills the image
reduced to the training size, and then draws detail in windows of that size.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from infdiff.cli import Parser, positive
from infdiff.commands.trained_run import add_deblur, add_format, load_run, origin, read_given
from infdiff.errors import OptionError
from infdiff.images.field_files import read_field
from infdiff.images.read import read_mask
from infdiff.images.sample_folder import WriteImage, sample_to_folder
from infdiff.methods.sampling import check_guidance, check_tile
from infdiff.pipelines.restore import GUIDANCE
from infdiff.pipelines.super_resolve import small_size
from infdiff.runs.editing import FILLING_GUIDANCE, FILLING_METHODS, fill, filling_method, filling_options
from infdiff.runs.fields import FieldWriter, writer_of


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff inpaint`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff inpaint")
    parser.add_run()
    parser.add_argument("--input", type=Path, required=True, help="the image, in any format and mode")
    parser.add_argument(
        "--mask", type=Path, help="image of the same size; white is filled (of fields, missing pixels are)"
    )
    parser.add_argument("--n", type=int, default=1, help="number of variants (default 1)")
    parser.add_argument("--variety", type=float, default=0.0, help="how far the latent is diffused, 0 (default) to 1")
    parser.add_argument(
        "--method", choices=FILLING_METHODS, help="default: windows beyond the training size, else guided"
    )
    parser.add_argument("--guidance", choices=GUIDANCE, help=f"towards visible pixels (default {FILLING_GUIDANCE})")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's, but at least 50)")
    parser.add_argument("--weight", type=float, default=1.0, help="strength of the guidance, 0 to 2 (default 1)")
    parser.add_argument(
        "--fixed-weight", type=float, metavar="LAMBDA", help="the paper's: steps of this many gradients, as they are"
    )
    add_deblur(parser)
    parser.add_argument("--tile", help="pixel rows per tile of guided projection, auto, or off (default: auto)")
    add_format(parser)
    parser.add_argument("--no-paste", action="store_true", help="keep the model's version of the visible pixels")
    parser.add_seed()
    parser.add_argument("--out", type=Path, help="folder (default INPUT-filled in the current folder)")
    parser.add_device()
    return parser


def run(arguments: Namespace) -> None:
    """Fill the masked part of one image."""
    trained = load_run(arguments)
    writer = writer_of(trained.field, arguments.format)
    image = read_given(trained, "input", arguments.input)
    hidden = hidden_pixels(image, arguments.mask)
    check_guidance(arguments.weight, arguments.variety)
    if arguments.fixed_weight is not None and not arguments.fixed_weight >= 0:
        raise OptionError("fixed-weight", arguments.fixed_weight, "want 0 or more")
    method = arguments.method or filling_method(trained, small_size(image))
    kind = arguments.guidance or ("gradient" if arguments.fixed_weight is not None else FILLING_GUIDANCE)
    check_tile(method, kind, arguments.tile)
    if arguments.fixed_weight is not None and kind != "gradient":
        raise OptionError("fixed-weight", arguments.fixed_weight, f"goes with guidance gradient, not with {kind}")
    options = filling_options(
        trained, small_size(image), steps=arguments.steps, deblur=arguments.deblur, tile=arguments.tile
    )
    if hidden.all():
        print(f"{arguments.mask} is white everywhere: nothing of {arguments.input} is kept", flush=True)
    guidance = {
        "method": method,
        "guidance": kind,
        "weight": arguments.weight,
        "variety": arguments.variety,
        "seed": arguments.seed,
    }
    guidance |= {"fixed_weight": arguments.fixed_weight}
    guidance["pasted"] = not arguments.no_paste
    count = positive("--n", arguments.n)
    folder = arguments.out or Path(f"{arguments.input.stem}-filled")
    record = guidance | {"steps": options.steps, "sampler": options.sampler, "deblur": options.deblur}
    record |= {"input": str(arguments.input), "mask": str(arguments.mask)} | origin(trained)
    with tqdm(unit="step", disable=None) as bar:
        sheet = sample_to_folder(
            lambda indices: fill(trained, image, hidden, indices, options=options, on_step=bar.update, **guidance),
            folder,
            count=count,
            batch=1,
            record=record,
            write=None if writer is None else write_pasted(writer, arguments, hidden),
        )
    print(f"{count} variants in {folder}, all of them in {sheet}")


def hidden_pixels(image: Tensor, mask: Path | None) -> Tensor:
    """Return the pixels (H, W) to fill: white ones of the mask, and missing ones of a field (1, C, H, W).

    Raises OptionError where there are none.
    """
    missing = image.isnan().any(dim=1)[0]
    if mask is not None:
        return read_mask(mask, (image.shape[2], image.shape[3])) | missing
    if not missing.any():
        raise OptionError("mask", None, "name an image of the same size, white where to fill: no pixel is missing")
    return missing


def write_pasted(writer: FieldWriter, arguments: Namespace, hidden: Tensor) -> WriteImage:
    """Return what writes variants of a field whose visible pixels are the input's to the bit, unless told otherwise."""
    given = torch.from_numpy(read_field("input", arguments.input, writer.field.channels))

    def write(image: Tensor, path: Path) -> Tensor:
        values = writer.field.in_units(image[None])[0]
        return writer.write_units(values if arguments.no_paste else torch.where(hidden, values, given), path)

    return write

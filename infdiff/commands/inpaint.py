"""Fill a masked part of an image with content from a trained model.

  infdiff inpaint --input photo.png --mask mask.png
  infdiff inpaint --run runs/photos --input photo.png --mask mask.png --n 4 --variety 0.5 --out filled
  infdiff inpaint --run runs/pets --input photo.png --mask mask.png --label cat --condition-weight 2
  infdiff inpaint --run runs/sea --input gauges.npy --n 8 --ensemble --truth complete.npy # fields: mean and spread

White pixels of the mask are filled; the mask has the image's size and any mode. The other pixels stay exactly as they
are, unless --no-paste is given. Variant i depends on the seed and i alone.

guided (the default up to the run's training size) fills the image at its own size. windows (beyond it) fills the image
reduced to the training size, and then draws detail in windows of that size.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from infdiff.cli import Parser, positive
from infdiff.commands.conditions import add_conditions, given_conditions, recorded_conditions
from infdiff.commands.trained_run import add_deblur, add_format, load_run, origin, read_given
from infdiff.coordinates import format_size
from infdiff.errors import OptionError
from infdiff.files import save_json
from infdiff.images.field_files import read_field, save_field
from infdiff.images.read import read_mask
from infdiff.images.sample_folder import WriteImage, sample_to_folder
from infdiff.images.write import save_png
from infdiff.methods.sampling import check_guidance, check_tile
from infdiff.pipelines.restore import GUIDANCE
from infdiff.pipelines.super_resolve import small_size
from infdiff.runs.editing import FILLING_GUIDANCE, FILLING_METHODS, fill, filling_method, filling_options
from infdiff.runs.ensembles import ensemble_picture, mean_and_spread, spread_skill_ratios
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
    parser.add_argument("--ensemble", action="store_true", help="of fields: the variants' mean, spread and a picture")
    parser.add_argument("--truth", type=Path, help="with --ensemble: the field that was not seen, to compare with")
    add_conditions(parser, "--condition-weight")
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
    conditions = trained.conditions_at(
        **given_conditions(trained, arguments), condition_weight=arguments.condition_weight
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
    truth = read_truth(arguments, writer, image)
    folder = arguments.out or Path(f"{arguments.input.stem}-filled")
    record = guidance | {"steps": options.steps, "sampler": options.sampler, "deblur": options.deblur}
    record |= recorded_conditions(arguments, "condition_weight")
    record |= {"input": str(arguments.input), "mask": str(arguments.mask)} | origin(trained)
    with tqdm(unit="step", disable=None) as bar:
        filled = partial(fill, trained, image, hidden, options=options, conditions=conditions, on_step=bar.update)
        sheet = sample_to_folder(
            lambda indices: filled(indices, **guidance),
            folder,
            count=count,
            batch=1,
            record=record,
            write=None if writer is None else write_pasted(writer, arguments, hidden),
        )
    print(f"{count} variants in {folder}, all of them in {sheet}")
    if writer is not None and arguments.ensemble:
        write_ensemble(writer, arguments, folder, hidden, truth)


def read_truth(arguments: Namespace, writer: FieldWriter | None, image: Tensor) -> Tensor | None:
    """Return the field (C, H, W) of --truth, in units. Raises OptionError for options of ensembles that cannot work."""
    if arguments.truth is not None and not arguments.ensemble:
        raise OptionError("truth", arguments.truth, "goes with --ensemble")
    if not arguments.ensemble:
        return None
    if writer is None:
        raise OptionError("ensemble", None, "goes with runs of fields: variants of RGB images have no useful mean")
    if arguments.n < 2:
        raise OptionError("n", arguments.n, "an ensemble takes 2 variants or more")
    if arguments.truth is None:
        return None
    truth = torch.from_numpy(read_field("truth", arguments.truth, writer.field.channels))
    if truth.shape != image.shape[1:]:
        sizes = [format_size((one.shape[-2], one.shape[-1])) for one in (truth, image)]
        raise OptionError("truth", arguments.truth, f"has {sizes[0]} pixels, and the input {sizes[1]}")
    return truth


def write_ensemble(
    writer: FieldWriter, arguments: Namespace, folder: Path, hidden: Tensor, truth: Tensor | None
) -> None:
    """Write mean and spread of the variants in a folder, and a picture of them; print how good the spread is."""
    channels = writer.field.channels
    paths = [folder / f"{index:05d}.{writer.form}" for index in range(arguments.n)]
    members = torch.stack([torch.from_numpy(read_field("out", path, channels)) for path in paths])
    mean, spread = mean_and_spread(members)
    for name, values in (("mean", mean), ("spread", spread)):
        save_field(values.numpy(), folder / f"{name}.{writer.form}")
    given = torch.from_numpy(read_field("input", arguments.input, channels))
    shown = torch.where(hidden, torch.nan, given)
    save_png(ensemble_picture(writer.field, shown, members, truth), folder / "ensemble.png")
    print(f"mean.{writer.form}, spread.{writer.form} and ensemble.png in {folder}")
    if truth is not None:
        ratios = spread_skill_ratios(members, truth, hidden)
        save_json(folder / "ensemble.json", {"members": arguments.n, "spread_skill": ratios})
        for channel, ratio in enumerate(ratios):
            print(f"{writer.field.label(channel)}: spread over error {ratio:.3g} (1: reliable; less: too sure)")


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

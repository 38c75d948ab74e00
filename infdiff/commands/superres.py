"""Enlarge an image, with detail that a trained model adds.

  infdiff superres --input small.png --res 256
  infdiff superres --run runs/photos --input small.png --res 512x768 --out large.png
  infdiff superres --run runs/photos --input small.png --res 256 --method encode --seed 3
  infdiff superres --run runs/photos --input small.png --res 4096 --method guided --guidance projection
  infdiff superres --run runs/pets --input cat.png --res 256 --label cat --condition-weight 2

windows (the default beyond the run's training size) draws detail in windows of that size, guided (the default up to
it) follows the input at every step: downsampled again, results of both agree with the input. encode is the paper's
method: it keeps only the input's latent. Guidance by projection sets what the input says in every estimate, in the
memory of sampling (--tile); by gradient it differentiates the network. A JSON file next to the image records the
options and the agreement.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from infdiff.cli import Parser
from infdiff.commands.conditions import add_conditions, given_conditions, recorded_conditions
from infdiff.commands.trained_run import add_deblur, add_format, load_run, origin, read_given
from infdiff.coordinates import format_size
from infdiff.files import make_folder, save_json
from infdiff.images.pixels import from_uint8
from infdiff.images.write import save_with_record
from infdiff.methods.sampling import check_enlarging, check_tile, guidance_weight
from infdiff.metrics.similarity import psnr
from infdiff.pipelines.restore import GUIDANCE
from infdiff.pipelines.super_resolve import METHODS, reduce, small_size
from infdiff.runs.editing import ENLARGING_GUIDANCE, enlarge, enlarging_method, enlarging_options
from infdiff.runs.fields import FieldWriter, writer_of


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff superres`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff superres")
    parser.add_run()
    parser.add_argument("--input", type=Path, required=True, help="the image to enlarge, in any format and mode")
    parser.add_argument("--res", required=True, help="256 (the longer side, aspect kept) or 512x768 (height x width)")
    parser.add_argument("--method", choices=METHODS, help="default: windows beyond the training size, else guided")
    parser.add_argument("--guidance", choices=GUIDANCE, help=f"of --method guided (default {ENLARGING_GUIDANCE})")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--weight", type=float, help="strength of the guidance of --method guided, 0 to 2 (default 1)")
    add_conditions(parser, "--condition-weight")
    add_deblur(parser)
    parser.add_argument("--tile", help="pixel rows per tile of encode and projection, auto, or off (default: auto)")
    parser.add_seed()
    parser.add_argument("--out", type=Path, help="file (default INPUT-SIZE.png in the current folder; of fields .npy)")
    add_format(parser)
    parser.add_device()
    return parser


def run(arguments: Namespace) -> None:
    """Enlarge one image and report how well the result, downsampled again, agrees with it."""
    trained = load_run(arguments)
    writer = writer_of(trained.field, arguments.format)
    small = read_given(trained, "input", arguments.input)
    trained.require_encoder()
    size = check_enlarging(small_size(small), arguments.res)
    options = enlarging_options(trained, size, steps=arguments.steps, deblur=arguments.deblur, tile=arguments.tile)
    method = arguments.method or enlarging_method(trained, size)
    weight = guidance_weight(method, arguments.weight, arguments.guidance)
    kind = arguments.guidance or ENLARGING_GUIDANCE
    check_tile(method, kind, arguments.tile)
    conditions = trained.conditions_at(
        **given_conditions(trained, arguments), condition_weight=arguments.condition_weight
    )
    guidance: dict[str, Any] = {"method": method, "weight": weight, "seed": arguments.seed}
    guidance["guidance"] = kind if method == "guided" else None
    out = arguments.out or Path(f"{arguments.input.stem}-{format_size(size)}.png")
    with tqdm(unit="step", disable=None) as bar:
        large = enlarge(trained, small, size, options=options, conditions=conditions, on_step=bar.update, **guidance)
    record = (
        guidance
        | recorded_conditions(arguments, "condition_weight")
        | {"steps": options.steps, "deblur": options.deblur}
    )
    record |= {"size": list(size), "input": str(arguments.input)} | origin(trained)
    if writer is not None:
        out, apart = save_enlarged(writer, large, small, out, record)
        print(f"{out}: {format_size(size)} pixels; downsampled again, root mean square from {arguments.input}: {apart}")
        return
    agreement = float(psnr(reduce(from_uint8(large), small_size(small)), from_uint8(small), peak=2))
    save_with_record(large[0], out, record | {"psnr_of_reduced": agreement})
    print(f"{out}: {format_size(size)} pixels; downsampled again, {agreement:.1f} dB from {arguments.input}")


def save_enlarged(
    writer: FieldWriter, large: Tensor, small: Tensor, out: Path, record: dict[str, Any]
) -> tuple[Path, str]:
    """Write an enlarged field, and return the file and how far its reduction is from the input, in units."""
    first, second = (writer.field.in_units(images) for images in (reduce(large, small_size(small)), small))
    apart = (first - second).square().nanmean(dim=(0, 2, 3)).sqrt().tolist()
    make_folder(out.parent)
    writer(large[0], out)
    save_json(out.with_suffix(".json"), record | {"rms_of_reduced": apart})
    named = (f"{writer.field.label(channel)} {value:.3g}" for channel, value in enumerate(apart))
    return out.with_suffix(f".{writer.form}"), ", ".join(named)

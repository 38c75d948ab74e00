"""Sample images of any size from a trained run.

  infdiff sample --res 1024                                     # one image from the newest run
  infdiff sample --run runs/photos --res 512x1024 --n 4 --steps 50 --seed 7 --out pictures
  infdiff sample --run runs/photos --res 256 --n 16 --sampler dpm++ --steps 20 --deblur none
  infdiff sample --run runs/dfu_ffhq_96 --res 160 --n 16        # DFU: 18 steps of Heun's method
  infdiff sample --run runs/pets --label cat --guidance 2 --n 8  # of one class; --label all: one after the other
  infdiff sample --run runs/rain --condition coarse.npy --res 256 --n 4
  infdiff sample --run runs/photos --interpolate a.png b.png --frames 12
  infdiff sample --run runs/photos --res 16384 --pyramid        # tiles of all sizes, which index.html opens
  torchrun --nproc-per-node 8 -m -- infdiff sample --run runs/photos --n 64 # eight processes share the images
  infdiff sample --run runs/photos --zoom 512:16384 --seconds 8 --at 0.4,0.6 --out zoom.mp4

Image i depends on the seed and i alone, whatever --n and --batch.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from infdiff import processes
from infdiff.cli import Parser, choose_device, positive, size_argument
from infdiff.commands.conditions import add_conditions, given_conditions, recorded_conditions
from infdiff.commands.trained_run import add_deblur, add_format, load_run, origin
from infdiff.commands.trainings import require_same_options, require_same_program, say
from infdiff.commands.zoom_video import add_zoom, refuse_zoom_options, write_zoom
from infdiff.config.settings import UPSCALES
from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError
from infdiff.images.read import read_images_at
from infdiff.images.sample_folder import frames_to_folder, sample_to_folder
from infdiff.methods.checks import backend_note, kernels_note
from infdiff.methods.method import SAMPLERS
from infdiff.methods.sampling import SamplingOptions, default_batch
from infdiff.methods.sizes import training_size
from infdiff.runs.editing import morph
from infdiff.runs.fields import pictures_of, read_fields_at, writer_of
from infdiff.runs.trained import ASPECTS, TrainedModel
from infdiff.viewer.pages import pyramids_to_folder


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff sample`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff sample")
    parser.add_run()
    parser.add_argument("--res", help="256, or 512x1024 (height x width); default: the training size")
    parser.add_argument("--n", type=int, default=1, help="number of images (default 1)")
    parser.add_argument("--batch", type=int, help="batch size (default: as many as fit in about 2 GiB)")
    parser.add_argument("--sampler", choices=SAMPLERS, help="default: the run's; heun for runs trained with EDM")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--eta", type=float, help="noise added by ddim, 0 (default) to 1")
    parser.add_argument("--variance", help="of ddpm's steps: posterior (default) or beta, which is larger")
    parser.add_argument("--churn", type=float, help="noise added by heun, 0 (default) or more")
    parser.add_argument(
        "--upscale",
        choices=UPSCALES,
        help="none: sample at --res; or from the training size: bilinear, cosine, windows",
    )
    parser.add_argument(
        "--aspect",
        choices=ASPECTS,
        default=ASPECTS[0],
        help="of sizes in other proportions than the training's: stretch (default), or keep: cut out of a larger image",
    )
    parser.add_seed()
    parser.add_argument(
        "--truncation", type=float, help="scale of the latents' spread; below 1: more typical images, less variety"
    )
    add_conditions(parser, "--guidance")
    add_deblur(parser)
    parser.add_argument("--tile", help="pixel rows per tile, auto, or off (default: auto for large images)")
    parser.add_argument("--pyramid", action="store_true", help="write each image as a Deep Zoom pyramid, not as a PNG")
    parser.add_argument("--interpolate", type=Path, nargs=2, metavar=("A", "B"), help="morph one image into another")
    parser.add_argument("--frames", type=int, default=8, help="frames of --interpolate, both ends included")
    add_zoom(parser)
    add_format(parser)
    parser.add_argument(
        "--out", type=Path, help="folder (default RUN/samples/SIZE-seedSEED), of --zoom a .webp, .gif or .mp4 file"
    )
    parser.add_device()
    return parser


def run(arguments: Namespace) -> None:
    """Sample images into a folder, or interpolate between two images, on all processes of torchrun."""
    for name in ("interpolate", "zoom"):
        if getattr(arguments, name):
            processes.require_one_process(f"sample --{name}")
    processes.select_gpu()
    with processes.together(choose_device(arguments.device), "sampling", "the same command draws its images again"):
        _run(arguments)


def _run(arguments: Namespace) -> None:
    trained = load_run(arguments)
    require_same_program(trained.config)
    if arguments.zoom is not None:
        write_zoom(trained, arguments)
        return
    refuse_zoom_options(arguments)
    writer = writer_of(trained.field, arguments.format)
    size = size_argument("--res", arguments.res) if arguments.res else training_size(trained.config)
    drawn = trained.drawn_size(size, arguments.aspect)
    options = SamplingOptions.of(
        trained.method,
        drawn,
        trained.device,
        sampler=arguments.sampler,
        steps=arguments.steps,
        eta=arguments.eta,
        variance=arguments.variance,
        churn=arguments.churn,
        truncation=arguments.truncation,
        # Between two images the network sees all pixels, whatever makes new ones larger.
        upscale="none" if arguments.interpolate else arguments.upscale,
        deblur=arguments.deblur,
        tile=arguments.tile,
    )
    # Where it depends on memory that is free, too.
    options = replace(options, tile=processes.of_the_first(options.tile))
    given = given_conditions(trained, arguments)
    conditions = trained.conditions(size, options, arguments.aspect, **given, guidance=arguments.guidance)
    if arguments.interpolate:
        if arguments.pyramid:
            raise OptionError("pyramid", None, "goes with new images, not with --interpolate")
        interpolate(trained, arguments, size, options)
        return
    count = positive("--n", arguments.n)
    place = processes.joined()
    in_bands = count < place.count and options.tile is not None
    most = min(default_batch(trained.method, drawn, options), -(-count // place.count))
    batch = most if arguments.batch is None else positive("--batch", arguments.batch)
    folder = arguments.out or trained.folder.samples / f"{format_size(size)}-seed{arguments.seed}"
    with processes.first_before_others():  # it may fit and store a Gaussian
        latents = trained.describe_latents()
    record = options.record(trained.method) | {
        "tile": options.tile,
        "size": list(size),
        "aspect": arguments.aspect,
        "seed": arguments.seed,
    }
    record |= recorded_conditions(arguments, "guidance")
    record |= {"count": count, "batch": batch, "latents": latents}
    record |= origin(trained)
    require_same_options(record)
    say(f"{trained.folder}, step {trained.step}; latents: {latents}{_shared(place.count, in_bands=in_bands)}")
    base = training_size(trained.config)
    if drawn == size and size[0] * base[1] != size[1] * base[0]:
        square, cut = format_size(base), format_size(trained.drawn_size(size, "keep"))
        say(f"note: images of {square} are stretched to {format_size(size)}: --aspect keep cuts them out of {cut}")
    notes = backend_note(trained.config, [options.sampled_at(drawn, base)]), kernels_note(trained.device)
    for note in filter(None, notes):
        say(f"note: {note}")
    batches = -(-count // batch)
    own = batches if in_bands else len(place.share(range(batches)))
    evaluations = own * options.evaluations(trained.method, drawn)
    with tqdm(total=evaluations, unit="step", disable=None if place.first else True) as bar:

        def draw(indices: Sequence[int]) -> Tensor:
            return trained.sample(
                indices,
                size,
                seed=arguments.seed,
                options=options,
                aspect=arguments.aspect,
                conditions=conditions,
                on_step=bar.update,
            )

        def draw_apart(indices: Sequence[int]) -> Tensor:
            with processes.apart():
                return draw(indices)

        if in_bands and not place.first:  # it draws its part of every image, and the first process has all parts
            for indices in torch.arange(count).split(batch):
                draw(indices.tolist())
            return
        sample, shared = (draw, False) if in_bands else (draw_apart, True)
        if arguments.pyramid:
            shown = pictures_of(trained.field)
            pages = pyramids_to_folder(
                lambda indices: shown(sample(indices)), folder, count=count, batch=batch, record=record, shared=shared
            )
            say(f"{count} images of {format_size(size)} pixels as pyramids; open {pages[0]} in a browser")
            return
        sheet = sample_to_folder(sample, folder, count=count, batch=batch, record=record, write=writer, shared=shared)
    say(f"{count} images of {format_size(size)} pixels in {folder}, all of them in {sheet}")


def _shared(count: int, *, in_bands: bool) -> str:
    if count == 1:
        return ""
    return f"; {count} processes share {'the rows of each image' if in_bands else 'the images'}"


def interpolate(trained: TrainedModel, arguments: Namespace, size: Size, options: SamplingOptions) -> None:
    """Morph one image into another with deterministic DDIM; the other sampling options do not apply."""
    trained.require_encoder()
    frames = positive("--frames", arguments.frames)
    field, ends = trained.field, arguments.interpolate
    images = (
        read_images_at("interpolate", ends, size) if field is None else read_fields_at(field, "interpolate", ends, size)
    )
    with tqdm(total=frames * options.steps, unit="step", disable=None) as bar:
        out = pictures_of(trained.field)(morph(trained, images, frames, options=options, on_step=bar.update))
    folder = arguments.out or trained.folder.samples / f"{format_size(size)}-interpolated"
    record = {"interpolate": list(map(str, arguments.interpolate)), "frames": frames, "steps": options.steps}
    record |= {"tile": options.tile, "size": list(size)} | origin(trained)
    print(f"{frames} frames of {format_size(size)} pixels in {folder}; {frames_to_folder(out, folder, record)}")

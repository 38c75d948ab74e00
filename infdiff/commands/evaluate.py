"""Compare images with real ones, at any size: samples of trained runs, or a folder of images.

  infdiff evaluate --run runs/photos --res 64,128,256 --n 500       # samples against the training data
  infdiff evaluate --run runs/photos --res 64 --data photos256.lmdb --split val --json scores.json
  infdiff evaluate --run runs/a runs/b --res 64,128 --n 500 --report compared.html     # side by side
  infdiff evaluate --images pictures --data photos256.lmdb          # a folder or zip instead of a run
  infdiff evaluate --images pictures --data ffhq.npz --network inception # published statistics: mu and sigma
  infdiff evaluate --run runs/photos --res 1024 --data photos.lmdb --patches 256 # detail that networks see reduced
  infdiff evaluate --run runs/photos --network clip,dinov2          # several feature networks, the same images
  infdiff evaluate --run runs/photos --task reconstruct --res 64 --n 100
  infdiff evaluate --run runs/photos --task superres --from 64 --res 256 --data photos256.lmdb --n 20
  infdiff evaluate --run runs/photos --task denoise --n 256         # the loss by noise level, on some and all points
  infdiff evaluate --run runs/photos --res 64 --n 500 --latents real # what the latent model costs: without it
  infdiff evaluate --run runs/pets --res 64 --conditions real --weight 2 # image i: of the class of real image i
  infdiff evaluate --run runs/photos --res 64 --steps 10,25,50,100  # the distance against the number of steps
  infdiff evaluate --task calibrate --res 256 --data photos256.lmdb # what the numbers mean: known corruptions
  infdiff evaluate --run runs/sea --data complete.lmdb --report sea.html # fields: spectra, values, variograms, patches
  torchrun --nproc-per-node 8 -m -- infdiff evaluate --run runs/photos --res 256 # eight processes share the sampling

Sampled images are kept in the run directory, so an evaluation that was stopped continues where it was.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from infdiff.cli import Parser, choose_device, numbers, output_file, positive, size_argument
from infdiff.commands.trained_run import add_deblur
from infdiff.config.settings import UPSCALES
from infdiff.errors import OptionError
from infdiff.evaluation.evaluate import Request, evaluate, finish
from infdiff.evaluation.fields import check_field_options
from infdiff.evaluation.real_conditions import CONDITIONS
from infdiff.evaluation.real_images import SPLITS
from infdiff.evaluation.statistics import METRICS_OF_STATISTICS, holds_statistics
from infdiff.evaluation.tasks import LATENTS, TASKS
from infdiff.methods.method import SAMPLERS
from infdiff.metrics.compare import METRICS, choose_metrics
from infdiff.metrics.compare_fields import FIELD_METRICS
from infdiff.metrics.features import DEFAULT, NETWORKS, load_network
from infdiff.pipelines.restore import GUIDANCE
from infdiff.pipelines.super_resolve import METHODS
from infdiff.processes import Place, select_gpu
from infdiff.runs.prepared_data import enclosing, prepared


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff evaluate`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser(prog)
    run(parser.parse_args(given), [*parser.prog.split(), *given])


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff evaluate")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="run directories (default: the newest)")
    parser.add_argument("--images", help="folder or zip of images of one size, instead of a run")
    parser.add_argument("--task", choices=TASKS, default=TASKS[0])
    parser.add_argument("--res", default="", help="64,128,512x256: sizes (default: the training size, or the images')")
    parser.add_argument("--from", dest="small", default="64", help="input size of superres (default 64)")
    parser.add_argument("--n", type=int, default=2000, help="samples at each size (default 2000)")
    parser.add_argument(
        "--data",
        type=Path,
        help="LMDB, folder or zip of real images, or their statistics in an .npz (default: the run's)",
    )
    parser.add_argument("--held-out", type=Path, help="LMDB of held-out images (default: a part of --data)")
    parser.add_argument("--split", choices=SPLITS, help="default: train for the run's data, val for pairs")
    parser.add_argument(
        "--metrics",
        default="",
        help=f"some of {','.join(METRICS)}; of fields some of {','.join(FIELD_METRICS)} (default: all)",
    )
    parser.add_argument(
        "--distances",
        default="",
        help="1,2,4: of the variograms of fields, in pixels or the unit of their extent (default: up to half of it)",
    )
    parser.add_argument(
        "--network", default="", help=f"(default {DEFAULT}) of the features, one or more of {','.join(NETWORKS)}"
    )
    parser.add_argument("--patches", type=int, metavar="SIDE", help="compare random patches of this size, too")
    parser.add_argument("--lpips", action="store_true", help="also of pairs, where its weights can be had")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--steps", default="", help="10,25,50: sampling steps (default: the run's)")
    parser.add_argument("--sampler", choices=SAMPLERS, help="default: the run's")
    parser.add_argument("--upscale", choices=UPSCALES, help="to sizes beyond the training size (default: the run's)")
    parser.add_argument("--method", choices=METHODS, help="of superres (default: the best for the run)")
    parser.add_argument("--guidance", choices=GUIDANCE, help="of superres with --method guided (default: the best)")
    parser.add_argument("--truncation", type=float, help="scale of the latents' spread (default: the run's)")
    add_deblur(parser)
    parser.add_argument(
        "--latents", choices=LATENTS, default=LATENTS[0], help="of generated images: the model's, or real images'"
    )
    parser.add_argument(
        "--conditions",
        choices=CONDITIONS,
        default=CONDITIONS[0],
        help="real: generated image i has the label and the condition channels of real image i",
    )
    parser.add_argument("--weight", type=float, help="of classifier-free guidance with --conditions real (default 1)")
    parser.add_argument("--batch", type=int, help="batch size (default: as many as fit in about 2 GiB)")
    parser.add_seed()
    parser.add_argument("--out", type=Path, help="folder for sampled images (default RUN/evaluation)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and how they were measured")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report as one HTML page")
    parser.add_device()
    return parser


def run(arguments: Namespace, command: Sequence[str]) -> None:
    """Compare images with real ones, and print the numbers."""
    select_gpu()
    output_file("--json", arguments.json)
    output_file("--report", arguments.report)
    request = request_of(arguments)
    steps_asked: Sequence[int] = whole_numbers("steps", arguments.steps)
    folders = request.folders(arguments.run)
    if folders == [None]:
        refuse_sampling_options(arguments)
    request = of_one_kind(request, folders, arguments)
    request = with_prepared_images(request)
    names = dict.fromkeys(name for name in arguments.network.split(",") if name)
    networks = [] if request.fields else [load_network(name, request.device) for name in names or [DEFAULT]]
    with tqdm(unit="image", disable=None if Place.here().first else True) as bar:
        found = [
            evaluate(replace(request, steps=steps), folder, networks, bar.update)
            for folder in folders
            for steps in steps_asked or (None,)
        ]
    if len(steps_asked) > 1:
        found = [replace(one, name=f"{one.name}, {one.about['options']['steps']} steps") for one in found]
    if Place.here().first:
        print(finish(request, found, networks, command, json=arguments.json, report=arguments.report))


def of_one_kind(request: Request, folders: Sequence[Path | None], arguments: Namespace) -> Request:
    """Return the request for fields or for RGB images, with the metrics of these. Raises OptionError for others."""
    if not request.of_fields(folders):
        if arguments.distances:
            raise OptionError("distances", arguments.distances, "goes with fields, not with RGB images")
        if not request.metrics and holds_statistics(request.data):
            return replace(request, metrics=METRICS_OF_STATISTICS)
        return replace(request, metrics=choose_metrics(request.metrics))
    statistics = str(request.data) if holds_statistics(request.data) else None
    others = {"network": arguments.network, "patches": request.patches, "lpips": request.lpips, "data": statistics}
    check_field_options(request.task, others)
    return replace(request, fields=True, metrics=choose_metrics(request.metrics, FIELD_METRICS))


def refuse_sampling_options(arguments: Namespace) -> None:
    """Raise OptionError for an option of sampling, which means nothing for images of a folder."""
    for name in ("steps", "sampler", "upscale", "method", "guidance", "truncation", "deblur"):
        if (value := getattr(arguments, name)) not in (None, ""):
            raise OptionError(name, value, "goes with images that a run makes")


def whole_numbers(option: str, text: str) -> list[int]:
    """Return what an option lists, 1 or more each. Raises OptionError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not part.isdecimal():
            raise OptionError(option, text, "want whole numbers with commas between them, as in 10,25,50")
    return [positive(f"--{option}", int(part)) for part in parts]


def with_prepared_images(request: Request) -> Request:
    """Prepare real images that are given as a folder or a zip, at the size of the largest comparison."""
    size = enclosing(request.sizes) if request.sizes else None
    say = print if Place.here().first else lambda line: None
    data, held_out = (
        path if path is None or holds_statistics(path) else prepared(path, size, say)
        for path in (request.data, request.held_out)
    )
    return replace(request, data=data, held_out=held_out)


def request_of(arguments: Namespace) -> Request:
    """Return the options as a request. Raises UserError naming an option that cannot be read."""
    same = (
        "task",
        "images",
        "data",
        "held_out",
        "split",
        "checkpoint",
        "sampler",
        "truncation",
        "upscale",
        "deblur",
        "method",
        "guidance",
        "batch",
        "latents",
        "conditions",
        "weight",
        "patches",
        "lpips",
    )
    if arguments.batch is not None:
        positive("--batch", arguments.batch)
    distances = sorted(set(numbers("--distances", arguments.distances)))
    return Request(
        sizes=[size_argument("--res", text) for text in arguments.res.split(",") if text],
        small=size_argument("--from", arguments.small),
        count=positive("--n", arguments.n),
        metrics=[name for name in arguments.metrics.split(",") if name],
        distances=tuple(distances),
        device=choose_device(arguments.device),
        keep_examples=arguments.report is not None,
        **{name: getattr(arguments, name) for name in (*same, "seed", "out")},
    )

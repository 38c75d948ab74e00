"""The part of `infdiff sample` that writes a video which zooms into one sample."""

import math
from argparse import Namespace
from collections.abc import Iterator

from PIL import Image
from tqdm import tqdm

from infdiff.cli import Parser
from infdiff.commands.trained_run import origin
from infdiff.coordinates import format_size
from infdiff.errors import OptionError
from infdiff.files import make_folder, save_json
from infdiff.images.video import MOST_FPS, check_video, save_video
from infdiff.methods.sizes import training_size
from infdiff.runs.trained import ASPECTS, TrainedModel
from infdiff.viewer.serve import painter_for, tiles_folder, zoom_options
from infdiff.viewer.zoom_frames import Zoom, frames
from infdiff.viewer.zoomed import Drawing, ZoomedImage

# Options of images that are sampled at once.
_OTHERS = (
    *("res", "batch", "upscale", "tile", "pyramid", "interpolate", "format"),
    *("label", "vector", "condition", "guidance"),
)
_SECONDS, _FPS = 8.0, 30.0


def add_zoom(parser: Parser) -> None:
    """Add --zoom and the options that go with it."""
    parser.add_argument(
        "--zoom", metavar="FROM:TO", help="a video that zooms into an image: complete at FROM pixels, a part at TO"
    )
    parser.add_argument("--at", metavar="X,Y", help="of --zoom: the place, in parts of width and height (0.5,0.5)")
    parser.add_argument("--seconds", type=float, help=f"of --zoom (default {_SECONDS:g})")
    parser.add_argument("--fps", type=float, help=f"frames a second of --zoom (default {_FPS:g})")


def refuse_zoom_options(arguments: Namespace) -> None:
    """Raise OptionError for an option of a zoom where none is asked for."""
    for name in ("at", "seconds", "fps"):
        if (value := getattr(arguments, name)) is not None:
            raise OptionError(name, value, "goes with --zoom")


def write_zoom(trained: TrainedModel, arguments: Namespace) -> None:
    """Write a video that zooms into one sample, of which what is in view is sampled alone."""
    for name in _OTHERS:
        if getattr(arguments, name):
            raise OptionError(name, None, "does not go with --zoom")
    if arguments.n != 1 or arguments.aspect != ASPECTS[0]:
        raise OptionError("zoom", arguments.zoom, "is of one image, in the proportions of the training's")
    zoom = Zoom.of(arguments.zoom, arguments.at)
    fps = _FPS if arguments.fps is None else arguments.fps
    seconds = _SECONDS if arguments.seconds is None else arguments.seconds
    if not 0 < fps <= MOST_FPS:
        raise OptionError("fps", fps, f"want more than 0, at most {MOST_FPS}")
    if not 2 <= seconds * fps < math.inf:
        raise OptionError("seconds", seconds, "want at least two frames")
    count = round(seconds * fps)
    base, seed = training_size(trained.config), arguments.seed
    names = ("sampler", "steps", "eta", "variance", "churn", "truncation", "deblur")
    options = zoom_options(trained, **{name: getattr(arguments, name) for name in names})
    size = zoom.frame(base)
    path = arguments.out or trained.folder.samples / f"zoom-{zoom.least}-{zoom.most}-seed{seed}.webp"
    check_video(path, size)
    painter = painter_for(trained, options, zoom.depth(base), "zoom")
    make_folder(path.parent)
    print(f"{trained.folder}, step {trained.step}; latents: {trained.describe_latents()}", flush=True)
    image = ZoomedImage(painter, seed, tiles_folder(painter) / f"seed-{seed}")
    with tqdm(total=count, unit="frame", disable=None) as bar:

        def report(tile: Drawing) -> None:
            level = format_size(image.pyramid.size_of(tile.level))
            bar.set_postfix_str(f"tile {tile.column}, {tile.row} of {level}: step {tile.step} of {tile.steps}")

        def counted() -> Iterator[Image.Image]:
            for frame in frames(image, zoom, count, report):
                yield frame
                bar.update()

        save_video(counted(), path, size, fps)
    record = options.record(trained.method) | {"zoom": [zoom.least, zoom.most], "at": list(zoom.at), "seed": seed}
    record |= {"size": list(size), "frames": count, "fps": fps, "latents": trained.describe_latents()}
    save_json(path.with_suffix(".json"), record | origin(trained))
    print(f"{count} frames of {format_size(size)} pixels in {path}, {image.drawn} tiles sampled")

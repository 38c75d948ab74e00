"""Show samples of a trained run in a browser, at any depth, and enlarge and fill images there.

  infdiff view                                  # the newest run, at http://127.0.0.1:8737/
  infdiff view --run runs/photos --res 16384 --seed 0,1,2
  infdiff view --run runs/photos --port 0       # any free port
  infdiff view --run runs/photos --measure      # no page: draws 200 tiles, and prints what they take

Zooming in samples the pixels that are not there yet, in agreement with what is on the screen. Tiles stay in the run's
folder as Deep Zoom pyramids, each with an index.html that opens it without this server. The server answers on this
machine alone. It uses the checkpoint that it loaded, whatever a training adds meanwhile.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from infdiff.cli import Parser, positive, size_argument
from infdiff.commands.trained_run import load_run
from infdiff.coordinates import format_size
from infdiff.errors import OptionError
from infdiff.viewer.measure import measure
from infdiff.viewer.serve import make_server, painter_for, tiles_folder, zoom_options
from infdiff.viewer.zoom_routes import MOST_SEED

PORT = 8737


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff view`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff view")
    parser.add_run()
    parser.add_argument("--res", default="4096", help="depth: the training size is doubled up to it (default 4096)")
    parser.add_argument("--seed", default="0", help="images to begin with, as in 0,1,2 (default 0)")
    parser.add_argument(
        "--truncation", type=float, help="scale of the latents' spread; below 1: more typical images, less variety"
    )
    parser.add_argument("--out", type=Path, help="folder of the tiles (default RUN/zoom/…)")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 for any that is free (default {PORT})")
    parser.add_argument("--measure", action="store_true", help="time tiles, and the memory they take, instead")
    parser.add_argument("--tiles", type=int, default=200, help="number of tiles of --measure (default 200)")
    parser.add_device()
    return parser


def run(arguments: Namespace) -> None:
    """Serve the pages until interrupted, or measure."""
    seeds = [seed_of(text) for text in arguments.seed.split(",")]
    asked = size_argument("--res", arguments.res)
    trained = load_run(arguments)
    painter = painter_for(trained, zoom_options(trained, truncation=arguments.truncation), asked)
    if arguments.measure:
        measure(painter, positive("--tiles", arguments.tiles), print)
        return
    folder = arguments.out or tiles_folder(painter)
    server = make_server(painter, folder, seeds, arguments.port)
    print(f"{trained.folder}, step {trained.step}; latents: {trained.describe_latents()}", flush=True)
    print(f"images of {format_size(painter.size)} pixels at {server.url} (tiles in {folder}; Ctrl-C ends)", flush=True)
    server.serve_until_interrupted(print)


def seed_of(text: str) -> int:
    """A seed of a list of them. Raises OptionError naming it."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MOST_SEED):
        raise OptionError("seed", text, f"want whole numbers from 0 to {MOST_SEED}, as in 0,1,2")
    return int(text)

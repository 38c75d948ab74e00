"""Enlarge a picture, with detail that a trained model adds.

  python scripts/superres.py --input small.png --res 256
  python scripts/superres.py --run runs/photos --input small.png --res 512x768 --out large.png
  python scripts/superres.py --run runs/photos --input small.png --res 256 --method encode --seed 3

guided (the default) keeps what the input says: reduced again, the result agrees with it. encode is the paper's way: it
keeps what the input's latent says. Beside the picture a JSON file says how it was made and how well it agrees.
"""

from pathlib import Path

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.cli import Parser, choose_device, run
from infdiff.coordinates import format_size
from infdiff.images.pixels import from_uint8
from infdiff.images.read import read_picture
from infdiff.images.write import save_with_record
from infdiff.methods.checks import check_enlarging, tile_rows
from infdiff.metrics.similarity import psnr
from infdiff.pipelines.super_resolve import METHODS, reduce, small_size
from infdiff.runs.trained import Run, newest_run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--input", type=Path, required=True, help="the picture to enlarge, any format and mode")
    parser.add_argument("--res", required=True, help="256 (the longer side, aspect kept) or 512x768 (height x width)")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0])
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--weight", type=float, default=1.0, help="of the guidance, 0 to 2 (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="PNG file (default INPUT-SIZE.png in the current folder)")
    parser.add_device()
    arguments = parser.parse_args()
    small = read_picture("--input", arguments.input)
    trained = Run.load(arguments.run or newest_run(), choose_device(arguments.device), arguments.checkpoint)
    trained.require_encoder()
    steps = trained.config.sample.steps if arguments.steps is None else arguments.steps
    size = check_enlarging(trained.config, small_size(small), arguments.res, steps, arguments.weight)
    options = {"method": arguments.method, "steps": steps, "weight": arguments.weight, "seed": arguments.seed}
    out = arguments.out or Path(f"{arguments.input.stem}-{format_size(size)}.png")
    with tqdm(unit="step", disable=None) as bar:
        tile = tile_rows(trained.config, size)
        large = trained.super_resolve(small, size, tile=tile, on_step=bar.update, **options)
    agreement = float(psnr(reduce(from_uint8(large), small_size(small)), from_uint8(small), peak=2))
    record = options | {"size": list(size), "input": str(arguments.input), "psnr_of_reduced": agreement}
    record |= {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}
    save_with_record(large[0], out, record)
    print(f"{out}: {format_size(size)} pixels; reduced again, {agreement:.1f} dB from {arguments.input}")


if __name__ == "__main__":
    run(main)

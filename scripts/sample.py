"""Sample images of any size from a trained run.

  python scripts/sample.py --res 1024                                     # one image from the newest run
  python scripts/sample.py --run runs/photos --res 512x1024 --n 4 --steps 50 --seed 7 --out pictures
  python scripts/sample.py --run runs/photos --res 256 --n 16 --sampler dpm++ --steps 20 --deblur
  python scripts/sample.py --run runs/dfu_ffhq_96 --res 160 --n 16        # DFU: 18 steps of Heun's method
  python scripts/sample.py --run runs/photos --interpolate a.png b.png --frames 12

Image i depends on the seed and i alone, whatever --n and --batch.
"""

from argparse import Namespace
from pathlib import Path

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.cli import Parser, choose_device, positive, run, size_argument
from infdiff.coordinates import Size, format_size
from infdiff.images.read import read_pictures_at
from infdiff.images.sample_folder import frames_to_folder, sample_to_folder
from infdiff.methods.checks import UPSCALES, default_batch, sampling_options, tile_rows
from infdiff.methods.method import SAMPLERS
from infdiff.methods.sizes import training_size
from infdiff.runs.trained import Run, newest_run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--res", help="256, or 512x1024 (height x width); default: the training size")
    parser.add_argument("--n", type=int, default=1, help="images (default 1)")
    parser.add_argument("--batch", type=int, help="images at once (default: as many as fit about 2 GiB)")
    parser.add_argument("--sampler", choices=SAMPLERS, help="default: the run's; heun for a grid network alone")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--eta", type=float, help="noise of ddim, from 0 (default) to 1")
    parser.add_argument("--churn", type=float, help="noise of heun, from 0 (default)")
    parser.add_argument("--upscale", choices=UPSCALES, help="bilinear: sample at the training size and resize")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--truncation", type=float, help="of the latents' spread; below 1 more usual images, less variety"
    )
    parser.add_argument("--deblur", action="store_true", help="undo the mollifier with the Wiener filter")
    parser.add_argument("--tile", help="rows of pixels at a time, or auto, or off; default: auto for large images")
    parser.add_argument("--interpolate", type=Path, nargs=2, metavar=("A", "B"), help="from one picture to another")
    parser.add_argument("--frames", type=int, default=8, help="of --interpolate, with both ends (default 8)")
    parser.add_argument("--out", type=Path, help="folder (default RUN/samples/SIZE-seedSEED)")
    parser.add_device()
    arguments = parser.parse_args()
    trained = Run.load(arguments.run or newest_run(), choose_device(arguments.device), arguments.checkpoint)
    size = size_argument("--res", arguments.res) if arguments.res else training_size(trained.config)
    given = {name: getattr(arguments, name) for name in ("sampler", "steps", "eta", "churn", "truncation", "upscale")}
    options = sampling_options(trained.config, size=size, deblur=arguments.deblur, **given)
    options |= {"tile": tile_rows(trained.config, size, arguments.tile)}
    if arguments.interpolate:
        interpolate(trained, arguments, size, {name: options[name] for name in ("steps", "tile")})
        return
    count = positive("--n", arguments.n)
    batch = positive("--batch", arguments.batch or default_batch(trained.config, size))
    options |= {"size": size, "seed": arguments.seed, "deblur": arguments.deblur}
    folder = arguments.out or trained.folder / "samples" / f"{format_size(size)}-seed{arguments.seed}"
    latents = trained.describe_latents()
    record = options | {"size": list(size), "count": count, "batch": batch, "latents": latents}
    record |= {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}
    print(f"{trained.folder}, step {trained.step}; latents: {latents}", flush=True)
    evaluations = -(-count // batch) * trained.method.evaluations(options["steps"])
    with tqdm(total=evaluations, unit="step", disable=None) as bar:
        sheet = sample_to_folder(
            lambda indices: trained.sample(indices, on_step=bar.update, **options),
            folder,
            count=count,
            batch=batch,
            record=record,
        )
    print(f"{count} images of {format_size(size)} pixels in {folder}, all of them in {sheet}")


def interpolate(trained: Run, arguments: Namespace, size: Size, options: dict) -> None:
    """`--interpolate`: deterministic DDIM, whatever the other sampling options say."""
    trained.require_encoder()
    frames = positive("--frames", arguments.frames)
    pictures = read_pictures_at("--interpolate", arguments.interpolate, size)
    with tqdm(total=frames * options["steps"], unit="step", disable=None) as bar:
        out = trained.interpolate(pictures, frames, on_step=bar.update, **options)
    folder = arguments.out or trained.folder / "samples" / f"{format_size(size)}-interpolated"
    record = {"interpolate": list(map(str, arguments.interpolate)), "frames": frames} | options
    record |= {"size": list(size), "run": str(trained.folder), "step": trained.step, "infdiff": __version__}
    print(f"{frames} frames of {format_size(size)} pixels in {folder}; {frames_to_folder(out, folder, record)}")


if __name__ == "__main__":
    run(main)

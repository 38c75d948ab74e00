"""Sample images of any size from a trained run.

  python scripts/sample.py --res 1024                                     # one image from the newest run
  python scripts/sample.py --run runs/photos --res 512x1024 --n 4 --steps 50 --seed 7 --out pictures
  python scripts/sample.py --run runs/photos --res 256 --n 16 --sampler dpm++ --steps 20 --deblur

Image i depends on the seed and i alone, whatever --n and --batch.
"""

from pathlib import Path

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.build import Run, check_sampling, default_batch, newest_run, training_size
from infdiff.cli import Parser, choose_device, positive, run, size_argument
from infdiff.diffusion.samplers import SAMPLERS
from infdiff.grid import format_size
from infdiff.pipelines.sample_folder import sample_to_folder


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--res", help="256, or 512x1024 (height x width); default: the training size")
    parser.add_argument("--n", type=int, default=1, help="images (default 1)")
    parser.add_argument("--batch", type=int, help="images at once (default: as many as fit about 2 GiB)")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), help="default: the run's")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--eta", type=float, help="noise of ddim, from 0 (default) to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--truncation", type=float, help="of the codes' spread; below 1 more usual images, less variety"
    )
    parser.add_argument("--deblur", action="store_true", help="undo the mollifier with the Wiener filter")
    parser.add_argument("--out", type=Path, help="folder (default RUN/samples/SIZE-seedSEED)")
    parser.add_device()
    arguments = parser.parse_args()
    trained = Run.load(arguments.run or newest_run(), choose_device(arguments.device), arguments.checkpoint)
    defaults = trained.config.sample
    size = size_argument("--res", arguments.res) if arguments.res else training_size(trained.config)
    options = {
        "size": size,
        "seed": arguments.seed,
        "sampler": arguments.sampler or defaults.sampler,
        "steps": defaults.steps if arguments.steps is None else arguments.steps,
        "eta": defaults.eta if arguments.eta is None else arguments.eta,
        "truncation": defaults.truncation if arguments.truncation is None else arguments.truncation,
        "deblur": arguments.deblur,
    }
    count = positive("--n", arguments.n)
    batch = positive("--batch", arguments.batch or default_batch(trained.config, size))
    check_sampling(trained.config, options)
    folder = arguments.out or trained.folder / "samples" / f"{format_size(size)}-seed{arguments.seed}"
    codes = trained.describe_latents()
    record = options | {"size": list(size), "count": count, "batch": batch, "latents": codes}
    record |= {"run": str(trained.folder), "step": trained.step, "infdiff": __version__, "torch": torch.__version__}
    print(f"{trained.folder}, step {trained.step}; latent codes: {codes}", flush=True)
    with tqdm(total=-(-count // batch) * options["steps"], unit="step", disable=None) as bar:
        sheet = sample_to_folder(
            lambda indices: trained.sample(indices, on_step=bar.update, **options),
            folder,
            count=count,
            batch=batch,
            record=record,
        )
    print(f"{count} images of {format_size(size)} pixels in {folder}, all of them in {sheet}")


if __name__ == "__main__":
    run(main)

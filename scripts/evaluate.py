"""Say how good images are, at every size: those of a trained run, or of a folder, beside real ones.

  python scripts/evaluate.py --run runs/photos --res 64,128,256 --n 500       # new images against the training data
  python scripts/evaluate.py --run runs/photos --res 64 --data photos256.lmdb --split val --json scores.json
  python scripts/evaluate.py --images pictures --data photos256.lmdb          # a folder or zip instead of a run
  python scripts/evaluate.py --run runs/photos --task reconstruct --res 64 --n 100
  python scripts/evaluate.py --run runs/photos --task superres --from 64 --res 256 --data photos256.lmdb --n 20
  python scripts/evaluate.py --task scale --res 256 --data photos256.lmdb     # what the numbers mean: known damage
  torchrun --nproc-per-node 8 scripts/evaluate.py --run runs/photos --res 256 # eight processes share the sampling

Images of a run are kept beside it: a call that was stopped goes on where it was.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.build import Run, newest_run, sampling_options
from infdiff.build import evaluation_tasks as tasks
from infdiff.build.evaluated_run import Maker, Share
from infdiff.build.evaluation import Evaluation
from infdiff.build.real_images import SPLITS
from infdiff.cli import Parser, choose_device, positive, run, size_argument
from infdiff.config import Config
from infdiff.errors import UserError
from infdiff.eval import compare, features, scores


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, help="run directory (default: the newest under runs/)")
    parser.add_argument("--images", help="folder or zip of images of one size, instead of a run")
    parser.add_argument("--task", choices=tasks.TASKS, default=tasks.TASKS[0])
    parser.add_argument("--res", default="", help="64,128,512x256: sizes (default: the training size, or the images')")
    parser.add_argument("--from", dest="small", default="64", help="size of the small images of superres (default 64)")
    parser.add_argument("--n", type=int, default=2000, help="images of the run at each size (default 2000)")
    parser.add_argument("--data", type=Path, help="LMDB of the real images (default: the run's own data)")
    parser.add_argument("--held-out", type=Path, help="LMDB of unseen images (default: a part of --data)")
    parser.add_argument("--split", choices=SPLITS, help="default: of the run's data train, for pairs val")
    parser.add_argument("--metrics", default="", help=f"some of {','.join(compare.METRICS)} (default: all)")
    parser.add_argument("--network", default=features.DEFAULT, choices=features.NETWORKS, help="of the features")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the run's)")
    parser.add_argument("--truncation", type=float, help="of the codes' spread (default: the run's)")
    parser.add_argument("--deblur", action="store_true", help="undo the mollifier with the Wiener filter")
    parser.add_argument("--batch", type=int, help="images at once (default: as many as fit about 2 GiB)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run's images (default RUN/evaluation)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and how they came about")
    parser.add_device()
    arguments = parser.parse_args()
    if arguments.json is not None and (arguments.json.is_dir() or not arguments.json.absolute().parent.is_dir()):
        raise UserError(f"--json {arguments.json}: want a file in a folder that exists")
    with tqdm(unit="image", disable=None if Share.here().rank == 0 else True) as bar:
        evaluation, about = evaluate(arguments, bar.update)
    if Share.here().rank == 0:
        about |= {"command": sys.argv, "infdiff": __version__, "torch": torch.__version__}
        about |= {"warnings": evaluation.warnings, "results": evaluation.results}
        if arguments.json is not None:
            scores.save_json(arguments.json, about)
        print(scores.as_text(evaluation.results, evaluation.warnings))


def evaluate(arguments: Namespace, on_images: Callable[[int], object]) -> tuple[Evaluation, dict[str, Any]]:
    """All results, and what they are of."""
    task, count = arguments.task, positive("--n", arguments.n)
    sizes = [size_argument("--res", text) for text in arguments.res.split(",") if text]
    metrics = compare.choose_metrics([name for name in arguments.metrics.split(",") if name])
    tasks.check_request(task, sizes, count, pictures=arguments.images is not None, data=arguments.data is not None)
    pictures = tasks.open_pictures(arguments.images) if arguments.images else None
    trained = None
    if pictures is None and task != "scale":
        folder = arguments.run or newest_run()
        trained = Run.load(folder, choose_device(arguments.device), arguments.checkpoint)
    config = Config() if trained is None else trained.config
    real = tasks.open_real_images(config, task, arguments.data, arguments.held_out, arguments.split)
    network = features.load_network(arguments.network, choose_device(arguments.device))
    evaluation = Evaluation(network, real, metrics, on_images)
    about = {"task": task, "images": arguments.images, "seed": arguments.seed, "metrics": metrics}
    about |= {"network": {"name": network.name, "version": network.version}, "real": real.about()}
    if trained is None:
        tasks.score_folder(evaluation, pictures, sizes) if pictures else tasks.score_damaged(evaluation, sizes)
        return evaluation, about
    options = sampling_options(config, steps=arguments.steps, truncation=arguments.truncation)
    parent = arguments.out or trained.folder / "evaluation"
    maker = Maker(trained, parent, arguments.seed, options, arguments.deblur, arguments.batch, Share.here(), on_images)
    tasks.score_run(evaluation, maker, task, sizes, count, size_argument("--from", arguments.small))
    about |= {"run": str(trained.folder), "step": trained.step, "latents": trained.describe_latents()}
    return evaluation, about | {"options": options | {"deblur": arguments.deblur}}


if __name__ == "__main__":
    run(main)

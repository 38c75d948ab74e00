"""Say how good images are, at every size: those of trained runs, or of a folder, beside real ones.

  python scripts/evaluate.py --run runs/photos --res 64,128,256 --n 500       # new images against the training data
  python scripts/evaluate.py --run runs/photos --res 64 --data photos256.lmdb --split val --json scores.json
  python scripts/evaluate.py --run runs/a runs/b --res 64,128 --n 500 --report compared.html     # side by side
  python scripts/evaluate.py --images pictures --data photos256.lmdb          # a folder or zip instead of a run
  python scripts/evaluate.py --run runs/photos --task reconstruct --res 64 --n 100
  python scripts/evaluate.py --run runs/photos --task superres --from 64 --res 256 --data photos256.lmdb --n 20
  python scripts/evaluate.py --task scale --res 256 --data photos256.lmdb     # what the numbers mean: known damage
  torchrun --nproc-per-node 8 scripts/evaluate.py --run runs/photos --res 256 # eight processes share the sampling

Images of a run are kept beside it: a call that was stopped goes on where it was.
"""

import sys
from argparse import Namespace
from pathlib import Path

from tqdm import tqdm

from infdiff.cli import Parser, choose_device, output_file, positive, run, size_argument
from infdiff.evaluation.evaluate import Request, evaluate, finish
from infdiff.evaluation.generated import Share
from infdiff.evaluation.real_images import SPLITS
from infdiff.evaluation.tasks import TASKS
from infdiff.metrics import compare, features


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="run directories (default: the newest)")
    parser.add_argument("--images", help="folder or zip of images of one size, instead of a run")
    parser.add_argument("--task", choices=TASKS, default=TASKS[0])
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
    parser.add_argument("--truncation", type=float, help="of the latents' spread (default: the run's)")
    parser.add_argument("--deblur", action="store_true", help="undo the mollifier with the Wiener filter")
    parser.add_argument("--batch", type=int, help="images at once (default: as many as fit about 2 GiB)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run's images (default RUN/evaluation)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and how they came about")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all of it as one HTML page")
    parser.add_device()
    arguments = parser.parse_args()
    output_file("--json", arguments.json)
    output_file("--report", arguments.report)
    request = request_of(arguments)
    folders = request.folders(arguments.run)
    network = features.load_network(arguments.network, request.device)
    with tqdm(unit="image", disable=None if Share.here().rank == 0 else True) as bar:
        found = [evaluate(request, folder, network, bar.update) for folder in folders]
    if Share.here().rank == 0:
        print(finish(request, found, network, sys.argv, json=arguments.json, report=arguments.report))


def request_of(arguments: Namespace) -> Request:
    """Options as a request; one that cannot be read is named."""
    same = ("task", "images", "data", "held_out", "split", "checkpoint", "steps", "truncation", "deblur", "batch")
    return Request(
        sizes=[size_argument("--res", text) for text in arguments.res.split(",") if text],
        small=size_argument("--from", arguments.small),
        count=positive("--n", arguments.n),
        metrics=compare.choose_metrics([name for name in arguments.metrics.split(",") if name]),
        device=choose_device(arguments.device),
        keep_looks=arguments.report is not None,
        **{name: getattr(arguments, name) for name in (*same, "seed", "out")},
    )


if __name__ == "__main__":
    run(main)

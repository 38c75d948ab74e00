"""Attack the commands as the world does, and print a table of what came of it.

  python -m tests.campaign                             # everything: hours
  python -m tests.campaign --quick                     # a few of each
  python -m tests.campaign --only kills --count 200    # one kind
  python -m tests.campaign --only soak --soak-steps 20000

Results are kept in the folder, and a campaign that was stopped goes on. Attack n of a kind is a function of (seed, n).
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from infdiff.metrics.features import DEFAULT, load_network
from tests.campaign import command_lines, damage, kills, owners, ranks, soak, writes
from tests.campaign.result import Results
from tests.campaign.scene import Scene

KINDS = {
    "kills": kills,
    "writes": writes,
    "damage": damage,
    "command-lines": command_lines,
    "owners": owners,
    "ranks": ranks,
    "soak": soak,
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.campaign", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", choices=KINDS, nargs="+", default=[*KINDS])
    parser.add_argument("--count", type=int, help="attacks of each kind")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soak-steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--folder", type=Path, default=Path("build/campaign"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _warm_up()
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")
    folder = arguments.folder.absolute()
    writes.preload(folder)
    scene = Scene(folder / "scene")
    soak.STEPS = 500 if arguments.quick else arguments.soak_steps
    results = Results(folder / f"results-{arguments.seed}.jsonl")
    for kind in arguments.only:
        module = KINDS[kind]
        for number in range(arguments.count or (module.QUICK if arguments.quick else module.COUNT)):
            if time.monotonic() > end:
                break
            if (kind, number) in results.found:
                continue
            result = module.trial(scene, number, random.Random(f"{arguments.seed} {kind} {number}"))
            results.add(kind, number, result)
            print(f"{kind} {number} {result.attack}: {result.outcome} {result.detail}", flush=True)
            if not result.good:
                _keep(scene.folder / "trials" / kind, folder / "bad" / f"{kind}-{arguments.seed}-{number}")
    print(f"seed {arguments.seed}")
    print(results.table())


def _warm_up() -> None:
    """Do once what a process does at first use, so that forked ones need not: find fonts, import networks."""
    with tempfile.TemporaryDirectory() as folder:
        Figure().savefig(Path(folder) / "empty.png")
    load_network(DEFAULT, torch.device("cpu"))


def _keep(place: Path, kept: Path) -> None:
    """Keep what an attack left behind, to be examined."""
    if place.exists():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place, kept)


if __name__ == "__main__":
    main()

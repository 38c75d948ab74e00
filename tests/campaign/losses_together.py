"""Train the same on 1, 2 and 4 processes: draw their losses and print the largest difference; or time 1 and 2 of them.

python -m tests.campaign.losses_together --out losses.webp
python -m tests.campaign.losses_together --speed           # images a second, each process on a core of its own
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from infdiff import processes
from infdiff.config.files import load_config
from infdiff.runs.data import build_data
from infdiff.runs.training import build_trainer
from tests.together import finish, start
from tests.training import train_together

COUNTS = (1, 2, 4)
KINDS = {"points": "∞-Diff", "mixture": "DFU"}
# Steps before those that count: the first ones choose algorithms and allocate.
_WARM_UP = 3
_PATIENCE = 3600.0  # seconds


def losses(folder: Path, count: int, steps: int) -> dict[str, list[float]]:
    """Train each kind on `count` processes, and return its losses."""
    own = folder / str(count)
    own.mkdir()
    codes, outputs = finish(
        start(count, [train_together.__file__, own, "auto", *(f"{kind}={steps}" for kind in KINDS)], own), _PATIENCE
    )
    if any(codes):
        raise SystemExit(f"{count} processes: {outputs}")
    return {kind: [record["loss"] for record in log(own / kind) if "loss" in record] for kind in KINDS}


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def draw(found: dict[int, dict[str, list[float]]], out: Path) -> None:
    """Losses above, and below them how far they are from those of one process."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    for column, (kind, name) in enumerate(KINDS.items()):
        above, below = (figure.add_subplot(2, 2, 2 * row + column + 1) for row in (0, 1))
        alone = found[1][kind]
        for count, values in ((count, losses[kind]) for count, losses in found.items()):
            steps, name_of_line = range(1, len(values) + 1), f"{count} process" + ("es" if count > 1 else "")
            above.plot(steps, values, label=name_of_line, linewidth=6 / count)  # one upon the other
            if count > 1:
                below.plot(steps, [abs(a - b) for a, b in zip(values, alone, strict=True)], label=name_of_line)
        above.set(title=name, ylabel="loss")
        above.legend()
        below.set(xlabel="step", ylabel="difference from 1 process", yscale="log")
        below.legend()
    figure.savefig(out, dpi=80)


def time_steps(steps: int) -> None:
    """Write the images of some steps of the demo configuration, their seconds, and those of processor time."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    with processes.together(cpu), tempfile.TemporaryDirectory() as folder:
        config = load_config("demo")
        trainer = build_trainer(config, build_data(config, cpu), Path(folder), cpu)
        batches = trainer.batches(0)
        for _ in range(_WARM_UP):
            trainer.train_step(batches)
        begun = trainer.seen, time.perf_counter(), time.process_time()
        for _ in range(steps):
            trainer.train_step(batches)
        ended = trainer.seen, time.perf_counter(), time.process_time()
    sys.stdout.write(json.dumps([after - before for before, after in zip(begun, ended, strict=True)]))


def rates(folder: Path, count: int, steps: int) -> tuple[float, float]:
    """Images a second by the clock, and milliseconds of processor time for an image, of `count` processes."""
    codes, outputs = finish(start(count, [__file__, "--timed", steps], folder), _PATIENCE)
    if any(codes):
        raise SystemExit(f"{count} processes: {outputs}")
    measured = [json.loads(printed) for printed, _ in outputs]
    images, seconds = measured[0][0], max(wall for _, wall, _ in measured)
    return images / seconds, 1000 * sum(spent for _, _, spent in measured) / images


def speed(folder: Path, steps: int, repeat: int) -> None:
    """Write medians of the rates of one process and of two, which take turns."""
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(repeat):
        for count, measured in found.items():
            measured.append(rates(folder, count, steps))
    for count, measured in found.items():
        by_clock, spent = (statistics.median(values) for values in zip(*measured, strict=True))
        sys.stdout.write(f"{count}: {by_clock:.2f} images/s, {spent:.1f} ms of processor time an image\n")


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.campaign.losses_together", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, help="(default 50; 20 with --speed)")
    parser.add_argument("--out", type=Path, default=Path("losses_together.webp"))
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--timed", type=int, help=argparse.SUPPRESS)  # what --speed calls in each process
    parser.add_argument("--repeat", type=int, default=3, help="of --speed (default 3)")
    arguments = parser.parse_args()
    if arguments.timed is not None:
        time_steps(arguments.timed)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.speed:
            speed(Path(folder), arguments.steps or 20, arguments.repeat)
            return
        curves = {count: losses(Path(folder), count, arguments.steps or 50) for count in COUNTS}
    draw(curves, arguments.out)
    for count in COUNTS[1:]:
        for kind, name in KINDS.items():
            pairs = zip(curves[count][kind], curves[1][kind], strict=True)
            largest = max(abs(a - b) for a, b in pairs)
            sys.stdout.write(f"{count} processes, {name}: largest difference {largest:.1e}\n")


if __name__ == "__main__":
    main()

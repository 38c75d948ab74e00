"""Train some steps as CUDA graphs and one kernel at a time, and compare their losses and their times."""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from infdiff.config import load_config
from infdiff.errors import UserError
from infdiff.files import save_json
from infdiff.ops.gpu import launch
from infdiff.runs.data import build_data
from infdiff.runs.training import build_trainer

# The first steps choose algorithms, compile kernels and record; all are compared, the others timed.
_STEPS, _UNTIMED = 60, 20
# The largest difference of losses, relative. Gradients of cuDNN may differ by roundings from run to run.
_SAME = 1e-2


class Steps(NamedTuple):
    """Losses of steps, and milliseconds of one after the first ones."""

    losses: list[float]
    ms: float


def steps_of(device: torch.device, recorded: bool | str, overrides: Sequence[str] = (), count: int = _STEPS) -> Steps:
    """Train the demo for some steps. recorded: as `train.graph`. Raises UserError where they cannot be recorded."""
    config = load_config("demo", [f"train.graph={str(recorded).lower()}", "train.compile=false", *overrides])
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, build_data(config, device), Path(folder), device)
        batches = trainer.batches(0)
        first = [trainer.train_step(batches).loss.clone() for _ in range(min(_UNTIMED, count - 1))]
        losses = torch.stack(first).tolist()  # waits for the device
        started = time.perf_counter()
        others = [trainer.train_step(batches).loss.clone() for _ in range(count - len(losses))]
        losses += torch.stack(others).tolist()
        return Steps(losses, 1000 * (time.perf_counter() - started) / len(others))


def compared(eager: Steps, recorded: Steps) -> dict[str, Any]:
    """Times of both and the largest relative difference of their losses, as a record for JSON."""
    pairs = zip(eager.losses, recorded.losses, strict=True)
    apart = max(abs(a - b) / abs(a) if a == a and b == b else float("inf") for a, b in pairs)
    return {"eager_ms": eager.ms, "recorded_ms": recorded.ms, "largest_difference": apart}


def main() -> None:
    """Exit with 1 and a line when steps cannot be recorded or their losses are others."""
    parser = ArgumentParser(prog="python -m infdiff.gpu_check.recorded_steps", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write the times")
    arguments = parser.parse_args()
    why = launch.why_closed()
    if why is not None:
        sys.exit(f"CUDA kernels do not run: {why}")
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        record = compared(steps_of(device, recorded=False), steps_of(device, recorded=True))
    except UserError as problem:
        sys.exit(str(problem))
    save_json(arguments.json, record)
    said = f"{record['eager_ms']:.2f} ms a step one kernel at a time, {record['recorded_ms']:.2f} as a CUDA graph"
    if not record["largest_difference"] <= _SAME:
        sys.exit(f"losses of recorded steps differ by {record['largest_difference']:.1e} of themselves; {said}")
    sys.stdout.write(f"{said}; losses differ by {record['largest_difference']:.1e} of themselves\n")


if __name__ == "__main__":
    main()

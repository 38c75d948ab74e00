"""torchrun starts all processes again when one is killed; no more steps are lost than lie between two checkpoints."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from infdiff.training import checkpoint
from infdiff.training.log import read_log
from tests.conftest import ONE_THREAD, ROOT
from tests.training import train_together

STEPS, EVERY = 24, 4


def launch(folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    options = ["--out", "r", "--steps", STEPS, *train_together.TINY, "train.log_every=1", "train.keep_checkpoints=100"]
    script = [ROOT / "scripts" / "train.py", *options, f"train.checkpoint_every={EVERY}", "train.sample_every=1000"]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [*command, *map(str, script)], cwd=folder, env=environment, stdout=output, stderr=output
        )


def workers(process):
    """Processes of Python that torchrun has started, by rank."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [int(value.partition(b"=")[2]) for value in variables if value.startswith(b"RANK=")]
        found |= {rank: int(child) for rank in ranks}
    return found


@pytest.mark.long
@pytest.mark.parametrize("doomed", [0, 1])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(tmp_path, doomed):
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    assert launch(folders[0]).wait(timeout=400) == 0, (folders[0] / "output").read_text()

    process, run = launch(folders[1]), folders[1] / "r"
    while len(read_log(run / "log.jsonl")) < STEPS // 2:
        assert process.poll() is None, (folders[1] / "output").read_text()
        time.sleep(0.05)
    os.kill(workers(process)[doomed], signal.SIGKILL)
    reached = read_log(run / "log.jsonl")[-1]["step"]
    kept = {step: state(run, step).stat().st_mtime_ns for step in checkpoint.checkpoint_steps(run / "checkpoints")}
    assert process.wait(timeout=400) == 0, (folders[1] / "output").read_text()

    # What was there is not written again: training went on from the last of it.
    assert max(kept) >= reached - EVERY
    assert {step: state(run, step).stat().st_mtime_ns for step in kept} == kept
    assert [record["step"] for record in read_log(run / "log.jsonl") if "loss" in record] == list(range(1, STEPS + 1))
    for group in ("denoiser", "ema_denoiser", "encoder", "optimizer"):
        tensors = [checkpoint.load_tensors(folder / "r" / "checkpoints", STEPS, group) for folder in folders]
        for name, value in tensors[0].items():
            assert torch.equal(tensors[1][name], value), (group, name)


def state(run, step):
    return run / "checkpoints" / f"{step:08d}" / "state.json"

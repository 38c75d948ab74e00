"""The settings that a Trainer reads. Part of the configuration; defined here, where they are used."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from infdiff.cuda_graphs import why_no_graphs
from infdiff.errors import UserError
from infdiff.precision import has_fast_bfloat16
from infdiff.schema import (
    BelowOne,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Section,
    Switch,
    UpToOne,
    one_of,
    some_of,
)
from infdiff.trackers import LOGS
from infdiff.training.compiled import why_not_compiled

OPTIMISERS = ("adamw", "muon")
PARALLEL = ("auto", "ddp", "fsdp")


class OptimiserSettings(Section):
    """Settings of any training, whatever the weights are for."""

    steps: Count = 100_000  # optimiser steps
    batch_size: Count = 32
    accumulate: Count = 1  # batches whose gradients make one optimiser step
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-5
    optimiser: Annotated[str, one_of(OPTIMISERS)] = "adamw"  # muon: for matrices between features
    muon_scale: Positive = 3.0  # Muon's learning rate, in units of learning_rate
    warmup: CountOrNone = 0  # steps of linear warm-up
    decay_from: UpToOne = 1.0  # after this part of the run the learning rate falls linearly to 0
    beta2: BelowOne = 0.999  # of Adam
    weight_decay: NotNegative = 0.0  # of AdamW: each step shrinks weights by this much of the learning rate
    clip: NotNegative = 1.0  # largest norm of the gradient; 0: no limit
    ema_decay: BelowOne = 0.9999  # approached as (1 + n) / (10 + n)
    bfloat16: bool = True  # autocast on CUDA, and on CPUs with matrix units (AMX)
    compile: Switch = "auto"  # torch.compile; auto: on CUDA, where it works
    graph: Switch = "auto"  # steps as CUDA graphs; auto: on CUDA, where they can be recorded
    # Under torchrun. ddp, auto: each process holds the network; fsdp: each holds a part of it, of its moments and EMA.
    parallel: Annotated[str, one_of(PARALLEL)] = "auto"
    deterministic: bool = False  # on CUDA, too, the same bits in every run; slower
    max_bad_steps: Count = 20  # stop after this many non-finite steps in a row
    log_every: Count = 50
    # Where the log goes: jsonl, tensorboard, wandb, trackio. log.jsonl is always written, named or not.
    log: Annotated[tuple[str, ...], some_of(LOGS)] = ("jsonl",)
    checkpoint_every: Count = 5000  # validation runs here, too, on as many batches as last a twentieth of these steps
    keep_checkpoints: Count = 2  # newest ones kept, with the best

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Return True where steps run in bfloat16: as asked, on a device that is faster for it."""
        return self.bfloat16 and has_fast_bfloat16(device)

    def samples_in_bfloat16(self, device: torch.device) -> bool:
        """Return True where networks trained by these settings are sampled in bfloat16.

        On CPUs samples stay in float32, so that a seed makes the same image with and without matrix units.
        """
        return self.bfloat16 and device.type == "cuda"

    def compiles(self, device: torch.device) -> bool:
        """Return True where networks are to be compiled."""
        return device.type == "cuda" if self.compile == "auto" else bool(self.compile)

    def records(self, device: torch.device) -> bool:
        """Return True where steps are to be recorded as CUDA graphs."""
        return why_no_graphs(device) is None if self.graph == "auto" else bool(self.graph)

    def shards(self, count: int) -> bool:
        """Return True where each of `count` processes holds a part of the networks."""
        return self.parallel == "fsdp" and count > 1

    def check_device(self, device: torch.device, section: str = "train") -> None:
        """Raise UserError naming a setting that the device cannot follow."""
        if self.graph is True and (problem := why_no_graphs(device)):
            raise UserError(f"{section}.graph: {problem}: leave it at auto")
        if self.compile is True and (problem := why_not_compiled(device)):
            raise UserError(f"{section}.compile: torch.compile does not work on {device.type}: {problem}")

    def validation_batches(self, every: int = 0) -> int:
        """Return the largest number of validation batches: they last a twentieth of the steps between validations.

        every: steps between validations that have another reason than a checkpoint; 0 for none. A function of settings
        and not of time, so that the losses of a run's checkpoints can be compared.
        """
        between = min(self.steps, self.checkpoint_every, every or self.steps)
        # Without gradients a batch takes about a third of the time.
        return max(1, 3 * self.accumulate * between // 20)

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        rate = self.learning_rate
        if self.warmup:
            rate *= min(1.0, (step + 1) / self.warmup)
        start = self.decay_from * self.steps
        if self.decay_from < 1 and step >= start:
            rate *= max(0.0, (self.steps - step) / max(1.0, self.steps - start))
        return rate

"""The settings of a training run. Part of the configuration; defined here, where they are used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    steps: int = 100_000  # optimiser steps
    batch_size: int = 32
    accumulate: int = 1  # batches whose gradients make one optimiser step
    subsample: float = 4.0  # train on one pixel in this many
    points: str = "uniform"  # uniform, stratified or halton
    latent_noise: float = 0.0  # standard deviation of noise on the latents, which themselves have 1
    learning_rate: float = 5e-5
    warmup: int = 0  # steps of linear warm-up
    decay_from: float = 1.0  # after this part of the run the learning rate falls linearly to 0
    beta2: float = 0.999  # of Adam
    weight_decay: float = 0.0  # of AdamW: each step shrinks weights by this much of the learning rate
    clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.9999  # approached as (1 + n) / (10 + n)
    bfloat16: bool = True  # autocast on CUDA
    compile: bool = False  # torch.compile
    max_bad_steps: int = 20  # stop after this many non-finite steps in a row
    log_every: int = 50
    sample_every: int = 5000
    checkpoint_every: int = 5000  # validation runs here, too
    keep_checkpoints: int = 2  # newest ones kept, beside the best
    validation_images: int = 256
    eval_every: int = 0  # small evaluation of samples every so many steps, with a checkpoint; 0: none
    eval_images: int = 128  # sampled for it, and training images compared with

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        rate = self.learning_rate
        if self.warmup:
            rate *= min(1.0, (step + 1) / self.warmup)
        start = self.decay_from * self.steps
        if self.decay_from < 1 and step >= start:
            rate *= max(0.0, (self.steps - step) / max(1.0, self.steps - start))
        return rate

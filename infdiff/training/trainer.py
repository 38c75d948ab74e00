"""The training loop: any modules, any objective. Exact to resume, and nothing in a step waits for the host."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from infdiff.errors import UserError
from infdiff.seeding import derive_seed, generator_for
from infdiff.training import checkpoint
from infdiff.training.ema import Ema
from infdiff.training.log import DelayedScalars, Log, plot_losses
from infdiff.training.settings import TrainSettings

Objective = Callable[[Mapping[str, nn.Module], Tensor, torch.Generator], Tensor]
OnSample = Callable[[int, Mapping[str, nn.Module]], None]
Evaluate = Callable[[Mapping[str, nn.Module]], dict[str, float]]


class Trainer:
    """Trains `modules` and keeps everything in `folder`; running it again continues where it stopped.

    objective(modules, batch, generator) gives the loss; batches(position) an endless iterator of batches from that
    position of the data's order; validation() the held-out batches; on_sample(step, averaged modules) makes pictures.
    evaluate(averaged modules) gives scores by name, kept with a checkpoint; None for no evaluation.
    All randomness of step n is a function of (seed, n).
    """

    def __init__(
        self,
        *,
        modules: dict[str, nn.Module],
        objective: Objective,
        batches: Callable[[int], Iterator[Tensor]],
        validation: Callable[[], Iterable[Tensor]],
        on_sample: OnSample,
        settings: TrainSettings,
        folder: Path,
        device: torch.device,
        seed: int,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.modules, self.objective, self.settings = modules, objective, settings
        self.batches, self.validation, self.on_sample = batches, validation, on_sample
        self.folder, self.checkpoints, self.device, self.seed = folder, folder / "checkpoints", device, seed
        self.names, self.parameters = _trainable(modules)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, fused=True
        )
        self.ema = Ema(modules, settings.ema_decay)
        self.step = 0
        self.skipped = 0  # non-finite steps so far
        self.bad_in_a_row = torch.zeros((), device=device)
        self.stop_signal: int | None = None
        if settings.compile:
            for module in modules.values():
                module.compile()

    def run(self) -> None:
        """Train to settings.steps. SIGTERM and SIGINT save and exit with 143 and 130.

        Raises UserError when max_bad_steps steps in a row had a non-finite loss or gradient, or a checkpoint cannot be
        written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.step >= self.settings.steps:
            return
        log = Log(self.folder / "log.jsonl", self.step)
        handlers = {s: signal.signal(s, self._request_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop(log)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def train_step(self, batches: Iterator[Tensor]) -> None:
        """One step as `run` takes it, of which nothing is logged or kept: to be measured."""
        self._train_step(batches)
        self.step += 1

    def _loop(self, log: Log) -> None:
        s = self.settings
        batches = self.batches(self.step * s.batch_size * s.accumulate)
        scalars = DelayedScalars()
        meter = _Meter(log, self.step, images_per_step=s.batch_size * s.accumulate)
        with tqdm(total=s.steps, initial=self.step, unit="step", disable=None, dynamic_ncols=True) as bar:
            while self.step < s.steps:
                scalars.push(self.step + 1, self._train_step(batches))
                self.step += 1
                bar.update()
                self._read(scalars.ready(), meter)
                if self.step % s.log_every == 0:
                    meter.report(self.step, s.rate(self.step - 1), self.skipped, bar, s.steps)
                if self.stop_signal is not None:
                    self._read(scalars.ready(wait=True), meter)
                    self._save(None)
                    sys.exit(128 + self.stop_signal)
                last = self.step == s.steps
                evaluated = self.evaluate is not None and s.eval_every > 0 and self.step % s.eval_every == 0
                if last or evaluated or self.step % s.checkpoint_every == 0:
                    self._read(scalars.ready(wait=True), meter)
                    loss = self._validate()
                    log.write({"step": self.step, "validation_loss": loss})
                    scores = self.evaluate(self.ema.modules) if evaluated and self.evaluate is not None else None
                    if scores is not None:
                        log.write({"step": self.step, "evaluation": scores})
                    self._save(loss, scores)
                    plot_losses(log.path, self.folder / "loss.png")
                    meter.restart(self.step)
                if last or self.step % s.sample_every == 0:
                    self.on_sample(self.step, self.ema.modules)
                    meter.restart(self.step)

    def _train_step(self, batches: Iterator[Tensor]) -> Tensor:
        """One optimiser step. Returns loss, gradient norm, whether it was skipped and how many were in a row."""
        s = self.settings
        # Dropout draws from the global generators.
        torch.manual_seed(derive_seed(self.seed, "dropout", self.step))
        generator = generator_for(self.device, self.seed, "step", self.step)
        total = torch.zeros((), device=self.device)
        for _ in range(s.accumulate):
            batch = next(batches)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                loss = self.objective(self.modules, batch, generator) / s.accumulate
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.parameters, s.clip)
        bad = (~(norm.isfinite() & total.isfinite())).float()
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.step)
        # The fused optimiser leaves weights and moments alone where this is 1, without the host knowing.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.modules, self.step)
        self.bad_in_a_row = (self.bad_in_a_row + bad) * bad
        return torch.stack([total, norm, bad, self.bad_in_a_row])

    @property
    def _autocast(self) -> bool:
        return self.settings.bfloat16 and self.device.type == "cuda"

    def _read(self, arrived: list[tuple[int, list[float]]], meter: _Meter) -> None:
        for step, (loss, norm, bad, in_a_row) in arrived:
            if bad:
                self.skipped += 1
            else:
                meter.add(loss, norm)
            if in_a_row >= self.settings.max_bad_steps:
                self._save(None)
                raise UserError(
                    f"the loss or gradient was not finite for {int(in_a_row)} steps in a row, up to step {step}; the "
                    "weights are untouched by them: lower train.learning_rate or set train.bfloat16=false"
                )

    @torch.no_grad()
    def _validate(self) -> float:
        """Loss of the averaged weights on held-out images, with the same draws every time."""
        losses, weights = [], []
        for number, batch in enumerate(self.validation()):
            generator = generator_for(self.device, self.seed, "validation", number)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                losses.append(self.objective(self.ema.modules, batch, generator) * batch.shape[0])
            weights.append(batch.shape[0])
        return float(torch.stack(losses).sum() / sum(weights))

    def _save(self, validation_loss: float | None, scores: dict[str, float] | None = None) -> None:
        moments: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            moments |= {f"{name}:{key}": value for key, value in self.optimizer.state[parameter].items()}
        groups = {name: module.state_dict() for name, module in self.modules.items()}
        groups |= {f"ema_{name}": module.state_dict() for name, module in self.ema.modules.items()}
        state = {
            "validation_loss": validation_loss,
            "evaluation": scores,
            "skipped": self.skipped,
            "bad_in_a_row": int(self.bad_in_a_row),
            "position": self.step * self.settings.batch_size * self.settings.accumulate,
        }
        checkpoint.save_checkpoint(self.checkpoints, self.step, groups | {"optimizer": moments}, state)
        checkpoint.prune_checkpoints(self.checkpoints, self.settings.keep_checkpoints)

    def _resume(self) -> None:
        checkpoint.clean_partial(self.checkpoints)
        steps = checkpoint.checkpoint_steps(self.checkpoints)
        if not steps:
            return
        step = steps[-1]
        state = checkpoint.load_state(self.checkpoints, step)
        for name, module in self.modules.items():
            module.load_state_dict(checkpoint.load_tensors(self.checkpoints, step, name))
            self.ema.modules[name].load_state_dict(checkpoint.load_tensors(self.checkpoints, step, f"ema_{name}"))
        moments = checkpoint.load_tensors(self.checkpoints, step, "optimizer")
        for name, parameter in zip(self.names, self.parameters, strict=True):
            values: dict[str, Any] = {}
            for key in ("exp_avg", "exp_avg_sq"):
                # In the parameter's memory layout, so that sums run in the order of an uninterrupted run.
                values[key] = torch.empty_like(parameter).copy_(moments[f"{name}:{key}"])
            values["step"] = moments[f"{name}:step"].to(self.device)
            self.optimizer.state[parameter] = values
        self.step, self.skipped = step, int(state["skipped"])
        self.bad_in_a_row = torch.tensor(float(state["bad_in_a_row"]), device=self.device)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number


class _Meter:
    """Means between two reports, and the pace."""

    def __init__(self, log: Log, step: int, images_per_step: int) -> None:
        self.log, self.images_per_step = log, images_per_step
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.restart(step)

    def restart(self, step: int) -> None:
        """Leave the time since the last report out of the pace."""
        self.started, self.last_step = time.perf_counter(), step

    def add(self, loss: float, norm: float) -> None:
        self.losses.append(loss)
        self.norms.append(norm)

    def report(self, step: int, rate: float, skipped: int, bar: Any, steps: int) -> None:
        now = time.perf_counter()
        pace = max(step - self.last_step, 1) / (now - self.started)
        images_per_second = round(pace * self.images_per_step, 2)
        loss = _mean(self.losses)
        self.log.write(
            {
                "step": step,
                "loss": loss,
                "gradient_norm": _mean(self.norms),
                "learning_rate": rate,
                "skipped": skipped,
                "images_per_second": images_per_second,
            }
        )
        shown = "not finite" if loss is None else f"{loss:.4f}"
        bar.set_postfix_str(f"loss {shown}, {images_per_second} images/s")
        if bar.disable:
            left = int((steps - step) / pace)
            where = f"step {step}/{steps}  loss {shown}  {images_per_second} images/s"
            tqdm.write(f"{where}  {left // 60}:{left % 60:02d} left")
        self.restart(step)
        self.losses, self.norms = [], []


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _trainable(modules: Mapping[str, nn.Module]) -> tuple[list[str], list[nn.Parameter]]:
    pairs = [(f"{name}.{key}", p) for name, module in modules.items() for key, p in module.named_parameters()]
    return [name for name, _ in pairs], [parameter for _, parameter in pairs]

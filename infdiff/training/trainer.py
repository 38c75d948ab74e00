"""The training loop: any modules, any objective. It resumes exactly, and no step waits for the host."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from infdiff.errors import UserError
from infdiff.seeding import generator_for, seed_global
from infdiff.training import checkpoint
from infdiff.training.ema import Ema
from infdiff.training.log import Arrived, DelayedScalars, Log, plot_losses
from infdiff.training.meter import Meter, labelled
from infdiff.training.optimiser import Optimiser
from infdiff.training.pauses import OnProgress, Pauses, Preview
from infdiff.training.settings import OptimiserSettings

# A batch is what `batches` yields: images, images at points, or latents.
Objective = Callable[[Mapping[str, nn.Module], Any, torch.Generator], Tensor]
Evaluate = Callable[[Mapping[str, nn.Module], OnProgress], dict[str, float]]
Calibrate = Callable[[Mapping[str, nn.Module], OnProgress], None]


class Batches(Protocol):
    """Batches in order; their number is known before they are read."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Step(NamedTuple):
    """Outcome of one optimiser step.

    scalars (4,), on the device: loss, gradient norm, 1 if it was skipped as non-finite, skipped steps in a row.
    """

    scalars: Tensor
    label: str  # of its batches

    @property
    def loss(self) -> Tensor:
        return self.scalars[0]


class Trainer:
    """Trains `modules` and keeps everything in `folder`; running it again continues where it stopped.

    objective(modules, batch, generator): returns the loss.
    batches(step): returns an endless iterator of batches, starting at that step.
    validation(): returns the validation batches.
    preview: saves example images of the EMA modules, every `sample_every` steps and at the end, as time allows.
    label(batch): a name by which losses are also logged; the same for all batches of a step.
    frozen(batch): parameters that the step does not change; the same for all batches of a step.
    evaluate(EMA modules, on_progress): returns metrics by name, stored with a checkpoint every `eval_every` steps.
    calibrate(EMA modules, on_progress): measures statistics that belong to their weights, before they are used or
    saved.
    clock: seconds, as `time.perf_counter`; it decides when previews are drawn, and nothing else.
    All randomness of step n is a function of (seed, n).
    """

    def __init__(
        self,
        *,
        modules: dict[str, nn.Module],
        objective: Objective,
        batches: Callable[[int], Iterator[Any]],
        validation: Callable[[], Batches],
        settings: OptimiserSettings,
        folder: Path,
        device: torch.device,
        seed: int,
        label: Callable[[Tensor], str] | None = None,
        frozen: Callable[[Tensor], Sequence[nn.Parameter]] = lambda batch: (),
        preview: Preview | None = None,
        sample_every: int = 0,
        evaluate: Evaluate | None = None,
        eval_every: int = 0,
        calibrate: Calibrate | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.frozen, self.calibrate, self._calibrated_at = frozen, calibrate, -1
        self.sample_every, self.eval_every, self.evaluate = sample_every, eval_every, evaluate
        self.label = label if label is not None else lambda batch: ""
        self.modules, self.objective, self.settings = modules, objective, settings
        self.batches, self.validation, self.preview, self.clock = batches, validation, preview, clock
        self.folder, self.checkpoints, self.device, self.seed = folder, folder / "checkpoints", device, seed
        self.names, self.parameters = _trainable(modules)
        self.optimiser = Optimiser(self.names, self.parameters, settings, _outer(modules))
        self.ema = Ema(modules, settings.ema_decay)
        self.step = 0
        self.seen = 0  # training images in this process
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

    def _loop(self, log: Log) -> None:
        s = self.settings
        batches = self.batches(self.step)
        scalars = DelayedScalars()
        meter = Meter(log, self.step)
        waiting = False  # a preview, for time
        with tqdm(total=s.steps, initial=self.step, unit="step", disable=None, dynamic_ncols=True) as bar:
            pauses = Pauses(bar, self.step, s.steps, self.clock)
            while self.step < s.steps:
                taken = self.train_step(batches)
                scalars.push(self.step, taken.scalars, taken.label)
                bar.update()
                self._read(scalars.ready(), meter)
                if self.step % s.log_every == 0:
                    meter.report(self.step, self.seen, s.rate(self.step - 1), self.skipped, bar, s.steps)
                if self.stop_signal is not None:
                    self._read(scalars.ready(wait=True), meter)
                    self._save(None)
                    sys.exit(128 + self.stop_signal)
                last = self.step == s.steps
                evaluated = self.evaluate is not None and self.eval_every > 0 and self.step % self.eval_every == 0
                if last or evaluated or self.step % s.checkpoint_every == 0:
                    self._read(scalars.ready(wait=True), meter)
                    self._calibrate(pauses)
                    with pauses.show(self.step, "validating") as on_progress:
                        loss, by_label, images = self._validate(on_progress)
                    log.write({"step": self.step, "validation_loss": loss} | labelled("validation_losses", by_label))
                    scores = None
                    if evaluated and self.evaluate is not None:
                        with pauses.show(self.step, "evaluating samples:", "network evaluations") as on_progress:
                            scores = self.evaluate(self.ema.modules, on_progress)
                        log.write({"step": self.step, "evaluation": scores})
                    self._save(loss, scores, images)
                    with pauses.show(self.step, "plotting losses"):
                        plot_losses(log.path, self.folder / "loss.png")
                    meter.restart(self.step, self.seen)
                due = last or (self.sample_every > 0 and self.step % self.sample_every == 0)
                if self.preview is not None and (due or waiting):
                    waiting = not pauses.preview(
                        self.step,
                        self.preview,
                        self.ema.modules,
                        waiting=waiting,
                        before=lambda: self._calibrate(pauses),
                    )
                    if not waiting:
                        meter.restart(self.step, self.seen)

    def train_step(self, batches: Iterator[Any]) -> Step:
        """Take one optimiser step with the next batches, without logging or saving anything."""
        s = self.settings
        # Dropout draws from the global generators.
        seed_global(self.device, self.seed, "dropout", self.step)
        generator = generator_for(self.device, self.seed, "step", self.step)
        total = torch.zeros((), device=self.device)
        for _ in range(s.accumulate):
            batch = next(batches)
            with _without_gradient(self.frozen(batch)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                    loss = self.objective(self.modules, batch, generator) / s.accumulate
                loss.backward()
            total += loss.detach()
            self.seen += batch.shape[0]
        norm = nn.utils.clip_grad_norm_(self.parameters, s.clip or math.inf)
        bad = (~(norm.isfinite() & total.isfinite())).float()
        self.optimiser.step(s.rate(self.step), bad)
        self.ema.update(self.modules, self.step)
        self.bad_in_a_row = (self.bad_in_a_row + bad) * bad
        self.step += 1
        return Step(torch.stack([total, norm, bad, self.bad_in_a_row]), self.label(batch))

    @property
    def _autocast(self) -> bool:
        return self.settings.uses_bfloat16(self.device)

    def _read(self, arrived: list[Arrived], meter: Meter) -> None:
        for step, label, (loss, norm, bad, in_a_row) in arrived:
            if bad:
                self.skipped += 1
            else:
                meter.add(label, loss, norm)
            if in_a_row >= self.settings.max_bad_steps:
                self._save(None)
                raise UserError(
                    f"the loss or gradient was not finite for {int(in_a_row)} steps in a row, up to step {step}; the "
                    "weights are untouched by them: lower train.learning_rate or set train.bfloat16=false"
                )

    @torch.no_grad()
    def _validate(self, on_progress: OnProgress) -> tuple[float, dict[str, float], int]:
        """Return the loss of the EMA weights on the validation batches, by label, and the number of images.

        The draws are always the same.
        """
        losses, weights, labels = [], [], []
        batches = self.validation()
        for number, batch in enumerate(batches):
            on_progress(number, len(batches))
            generator = generator_for(self.device, self.seed, "validation", number)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                losses.append(self.objective(self.ema.modules, batch, generator) * batch.shape[0])
            weights.append(batch.shape[0])
            labels.append(self.label(batch))
        sums = torch.stack(losses).tolist()
        by_label = {}
        for label in dict.fromkeys(labels):
            own = [n for n, other in enumerate(labels) if other == label]
            by_label[label] = sum(sums[n] for n in own) / sum(weights[n] for n in own)
        return sum(sums) / sum(weights), by_label, sum(weights)

    def _calibrate(self, pauses: Pauses | None = None) -> None:
        """Measure the statistics of the EMA weights of this step, once."""
        if self.calibrate is None or self._calibrated_at == self.step:
            return
        if pauses is None:
            self.calibrate(self.ema.modules, lambda done, total: None)
        else:
            with pauses.show(self.step, "measuring latents", "images") as on_progress:
                self.calibrate(self.ema.modules, on_progress)
        self._calibrated_at = self.step

    def _save(self, validation_loss: float | None, scores: dict[str, float] | None = None, images: int = 0) -> None:
        self._calibrate()
        groups = {name: module.state_dict() for name, module in self.modules.items()}
        groups |= {f"ema_{name}": module.state_dict() for name, module in self.ema.modules.items()}
        state = {
            "validation_loss": validation_loss,
            "validation_images": images,
            "evaluation": scores,
            "skipped": self.skipped,
            "bad_in_a_row": int(self.bad_in_a_row),
        }
        checkpoint.save_checkpoint(self.checkpoints, self.step, groups | {"optimizer": self.optimiser.state()}, state)
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
        self.optimiser.load_state(checkpoint.load_tensors(self.checkpoints, step, "optimizer"), self.device)
        self.step, self.skipped = step, int(state["skipped"])
        self.bad_in_a_row = torch.tensor(float(state["bad_in_a_row"]), device=self.device)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number


@contextmanager
def _without_gradient(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _trainable(modules: Mapping[str, nn.Module]) -> tuple[list[str], list[nn.Parameter]]:
    pairs = [(f"{name}.{key}", p) for name, module in modules.items() for key, p in module.named_parameters()]
    return [name for name, _ in pairs], [parameter for _, parameter in pairs]


def _outer(modules: Mapping[str, nn.Module]) -> set[str]:
    """Return the names of the parameters in the layers that modules list as `outer_layers`."""
    layers = {f"{name}.{layer}" for name, module in modules.items() for layer in getattr(module, "outer_layers", ())}
    return {name for name in _trainable(modules)[0] if any(name.startswith(f"{layer}.") for layer in layers)}

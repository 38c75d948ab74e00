"""The training loop: any modules, any objective. It resumes exactly, and no step waits for the host.

A run that was stopped and continued draws the same batches, noise and points as one that was not, on every device. On a
CPU its weights are the same bits, too. On CUDA they are with `deterministic`; without it, libraries of NVIDIA's sum in
any order, and weights are the same to rounding alone, which training amplifies. (The kernels of this package are
deterministic in any case.) Always on the same kind of device, with the same versions.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from infdiff import processes
from infdiff.errors import UserError
from infdiff.precision import number_formats
from infdiff.seeding import generator_for
from infdiff.training import checkpoint
from infdiff.training.determinism import deterministic_algorithms
from infdiff.training.ema import Ema
from infdiff.training.log import Arrived, DelayedScalars, Log, plot_losses
from infdiff.training.meter import Meter, labelled
from infdiff.training.optimiser import Optimiser
from infdiff.training.pauses import OnProgress, Pauses, Preview
from infdiff.training.settings import OptimiserSettings
from infdiff.training.sharded import ShardedEma, complete_state, load_complete, shard
from infdiff.training.step import Objective, TrainingStep

# Steps after which every process has read that one of them was asked to stop, without having waited for it.
_DELAY = 8
# Seconds between two drawings of the losses, each of which takes a tenth of one.
_PLOT_EVERY = 10.0
_REMEDY = "start another run (--out) with a lower train.learning_rate or with train.bfloat16=false"

Evaluate = Callable[[Mapping[str, nn.Module], OnProgress], dict[str, float]]
Calibrate = Callable[[Mapping[str, nn.Module], OnProgress], None]


class Batches(Protocol):
    """Batches in order; their number is known before they are read."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Step(NamedTuple):
    """Outcome of one optimiser step.

    scalars (5,), on the device: loss, gradient norm, 1 if it was skipped as non-finite, skipped steps in a row, and how
    many processes were asked to stop.
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
    preview: saves example images of the EMA modules, every `sample_every` steps and at the end, as time allows; called
    by every process, and the first one saves them.
    label(batch): a name by which losses are also logged; the same for all batches of a step.
    frozen(batch): parameters that the step does not change; the same for all batches of a step.
    evaluate(EMA modules, on_progress): returns metrics by name, stored with a checkpoint every `eval_every` steps;
    called by every process, and those of the first count.
    calibrate(EMA modules, on_progress): measures statistics that belong to their weights, before they are used or
    saved.
    clock: seconds, as `time.perf_counter`; it decides when previews and losses are drawn, and nothing else.
    All randomness of step n is a function of (seed, n), whatever the number of processes that train together. The first
    of them writes and logs for all.
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
        frozen: Callable[[Tensor], Sequence[nn.Parameter]] | None = None,
        preview: Preview | None = None,
        sample_every: int = 0,
        evaluate: Evaluate | None = None,
        eval_every: int = 0,
        calibrate: Calibrate | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.calibrate, self._calibrated_at = calibrate, -1
        self.frozen: Callable[[Tensor], Sequence[nn.Parameter]] = frozen if frozen is not None else lambda batch: ()
        self.sample_every, self.eval_every, self.evaluate = sample_every, eval_every, evaluate
        self.label = label if label is not None else lambda batch: ""
        self.modules, self.objective, self.settings = modules, objective, settings
        self.batches, self.validation, self.preview, self.clock = batches, validation, preview, clock
        self.folder, self.checkpoints, self.device, self.seed = folder, folder / "checkpoints", device, seed
        self.place = processes.joined()
        if settings.shards(self.place.count):
            self.ema: Ema = ShardedEma(modules, settings.ema_decay, device)
            shard(modules, device)
        else:
            self.ema = Ema({name: module.to(device) for name, module in modules.items()}, settings.ema_decay)
        self.names, self.parameters = _trainable(modules)
        self.optimiser = Optimiser(self.names, self.parameters, settings, _outer(modules))
        self.step = 0
        self.seen = 0  # training images in this process
        self.skipped = 0  # non-finite steps so far
        self.meter: Meter | None = None
        self.unreported: tuple[list[tuple[str, float]], list[float]] = ([], [])  # of steps before the checkpoint
        self.stop_signal: int | None = None
        self.change = TrainingStep(
            modules, objective, self.optimiser, settings, device, seed, varied=frozen is not None
        )
        self._stop_from: int | None = None  # the first step in which a process was asked to stop
        self._failed: tuple[int, int] | None = None  # a step, and how many up to it were not finite

    def run(self) -> None:
        """Train to settings.steps. SIGTERM and SIGINT save and exit with 143 and 130.

        Raises UserError when max_bad_steps steps in a row had a non-finite loss or gradient, or a checkpoint cannot be
        written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        log = Log(self.folder / "log.jsonl", self.step, writes=self.place.first)
        behind = processes.of_the_first(self._lacks_pictures())
        if self.place.first and 0 < self.settings.steps <= self.step:  # no later checkpoint will draw it
            plot_losses(log.path, self.folder / "loss.png")
        if self.step >= self.settings.steps and not behind:
            return
        with log.followed(self.settings.log, self._say):
            if behind:
                self._catch_up(log)
            if self.step < self.settings.steps:
                self._train(log)

    def _train(self, log: Log) -> None:
        handlers = {s: signal.signal(s, self._request_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with deterministic_algorithms(self.settings.deterministic):
                self._loop(log)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        processes.wait()

    def _lacks_pictures(self) -> bool:
        """Return True where a process was killed after the checkpoint, before it drew what follows."""
        return self.step > 0 and self.preview is not None and self._due(self.step) and not self._pictures()

    def _pictures(self) -> Sequence[Path]:
        return () if self.preview is None else self.preview.pictures(self.step)

    def _catch_up(self, log: Log) -> None:
        """Draw what follows a checkpoint, where a process was killed before it did."""
        assert self.preview is not None
        silent = None if self.place.first else True
        with tqdm(total=self.settings.steps, initial=self.step, unit="step", disable=silent) as bar:
            pauses = Pauses(bar, self.step, self.settings.steps, self.clock, say=self._say)
            self.ema.gather()
            with pauses.show(self.step, "preview:", "network evaluations") as on_progress:
                self.preview(self.step, self.ema.modules, self.preview.most, on_progress)
        log.images(self.step, self._pictures())

    def _say(self, line: str) -> None:
        if self.place.first:
            tqdm.write(line)

    def _due(self, step: int) -> bool:
        """True for a step that ends with a preview."""
        return step == self.settings.steps or (self.sample_every > 0 and step % self.sample_every == 0)

    def _loop(self, log: Log) -> None:
        s = self.settings
        batches = self.batches(self.step)
        scalars = DelayedScalars()
        say = self._say
        self.meter = meter = Meter(log, self.step, say=say)
        meter.losses, meter.norms = self.unreported
        waiting = False  # a preview, for time
        plotted = self.clock()
        silent = None if self.place.first else True
        with tqdm(total=s.steps, initial=self.step, unit="step", disable=silent, dynamic_ncols=True) as bar:
            pauses = Pauses(bar, self.step, s.steps, self.clock, say=say)
            while self.step < s.steps:
                taken = self.train_step(batches)
                while self.change.notes:
                    say(f"note: {self.change.notes.pop(0)}")
                scalars.push(self.step, taken.scalars, taken.label)
                bar.update()
                self._read(scalars.ready(self.step - _DELAY if self.place.count > 1 else 0), meter)
                if self.step % s.log_every == 0:
                    meter.report(self.step, self.seen, s.rate(self.step - 1), self.skipped, bar, s.steps)
                if self._stops():
                    self._read(scalars.ready(self.step), meter)
                    self._save(None)
                    sys.exit(128 + (self.stop_signal or signal.SIGTERM))
                last = self.step == s.steps
                evaluated = self.evaluate is not None and self.eval_every > 0 and self.step % self.eval_every == 0
                if last or evaluated or self.step % s.checkpoint_every == 0:
                    self._read(scalars.ready(self.step), meter)
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
                    if self.place.first and (last or self.clock() - plotted >= _PLOT_EVERY):
                        with pauses.show(self.step, "plotting losses"):
                            plot_losses(log.path, self.folder / "loss.png")
                        plotted = self.clock()
                    meter.restart(self.step, self.seen)
                # Several processes agree on the time, for which they wait for each other: not at every step.
                again = waiting and (self.place.count == 1 or self.step % s.log_every == 0)
                if self.preview is not None and (self._due(self.step) or again):
                    waiting = not pauses.preview(
                        self.step,
                        self.preview,
                        self.ema.modules,
                        waiting=waiting,
                        before=lambda: self._calibrate(pauses),
                    )
                    if not waiting:
                        log.images(self.step, self._pictures())
                        meter.restart(self.step, self.seen)

    def train_step(self, batches: Iterator[Any]) -> Step:
        """Take one optimiser step with the next batches, without logging or saving anything."""
        if self.stop_signal is not None:
            self.change.stop.fill_(1.0)
        given = [next(batches) for _ in range(self.settings.accumulate)]
        scalars = self.change(self.step, given, self.frozen(given[-1]))
        self.ema.update(self.modules, self.step)
        self.seen += processes.global_size(sum(batch.shape[0] for batch in given))
        self.step += 1
        return Step(scalars, self.label(given[-1]))

    def _stops(self) -> bool:
        """Return True to save and exit now: at once, or in the step that all processes agree on without waiting."""
        if self.place.count == 1:
            return self.stop_signal is not None
        return self._stop_from is not None and self.step >= self._stop_from + _DELAY

    def _read(self, arrived: list[Arrived], meter: Meter) -> None:
        for step, label, (loss, norm, bad, in_a_row, stop) in arrived:
            if stop and self._stop_from is None:
                self._stop_from = step
            if bad:
                self.skipped += 1
            else:
                meter.add(label, loss, norm)
            if in_a_row >= self.settings.max_bad_steps and self._failed is None:
                self._failed = step, int(in_a_row)
        # Several processes read it at different times, and stop in the same step.
        if self._failed is not None and (self.place.count == 1 or self.step >= self._failed[0] + _DELAY):
            # Nothing is saved: another checkpoint would push out an older and better one.
            raise UserError(
                f"the loss or gradient was not finite for {self._failed[1]} steps in a row, up to step "
                f"{self._failed[0]}; {self._kept()}: {_REMEDY}"
            )

    @torch.no_grad()
    def _validate(self, on_progress: OnProgress) -> tuple[float, dict[str, float], int]:
        """Return the loss of the EMA weights on the validation batches, by label, and the number of images.

        The draws are always the same. Processes share the batches.
        """
        weights, labels = [], []
        batches = self.validation()
        losses = torch.zeros(len(batches), device=self.device)
        for number, batch in enumerate(batches):
            weights.append(batch.shape[0])
            labels.append(self.label(batch))
            if number % self.place.count != self.place.rank:
                continue
            on_progress(number, len(batches))
            generator = generator_for(self.device, self.seed, "validation", number)
            formats = number_formats(self.device, bfloat16=self.settings.uses_bfloat16(self.device))
            with formats, processes.apart():
                losses[number] = self.objective(self.ema.modules, batch, generator) * batch.shape[0]
        sums = processes.total(losses).tolist()
        by_label = {}
        for label in dict.fromkeys(labels):
            own = [n for n, other in enumerate(labels) if other == label]
            by_label[label] = sum(sums[n] for n in own) / sum(weights[n] for n in own)
        return sum(sums) / sum(weights), by_label, sum(weights)

    def _calibrate(self, pauses: Pauses | None = None) -> None:
        """Complete the EMA weights of this step, and measure their statistics, once."""
        self.ema.gather()
        if self.calibrate is None or self._calibrated_at == self.step:
            return
        with processes.apart():
            if pauses is None:
                self.calibrate(self.ema.modules, lambda done, total: None)
            else:
                with pauses.show(self.step, "measuring latents", "images") as on_progress:
                    self.calibrate(self.ema.modules, on_progress)
        self._calibrated_at = self.step

    def _save(self, validation_loss: float | None, scores: dict[str, float] | None = None, images: int = 0) -> None:
        self._calibrate()
        groups = {name: complete_state(module) for name, module in self.modules.items()}
        groups |= {f"ema_{name}": module.state_dict() for name, module in self.ema.modules.items()}
        groups["optimizer"] = self.optimiser.state()
        if self.place.first:
            self._write(groups, validation_loss, scores, images)
        processes.wait()

    def _write(
        self,
        groups: dict[str, dict[str, Tensor]],
        validation_loss: float | None,
        scores: dict[str, float] | None,
        images: int,
    ) -> None:
        if not _all_finite({name: tensors for name, tensors in groups.items() if name != "optimizer"}):
            raise UserError(f"the weights are not finite at step {self.step} and not saved; {self._kept()}: {_REMEDY}")
        state = {
            "validation_loss": validation_loss,
            "validation_images": images,
            "evaluation": scores,
            "skipped": self.skipped,
            "bad_in_a_row": int(self.change.bad_in_a_row),
            "unreported": ([], []) if self.meter is None else (self.meter.losses, self.meter.norms),
        }
        checkpoint.save_checkpoint(self.checkpoints, self.step, groups, state)
        checkpoint.prune_checkpoints(self.checkpoints, self.settings.keep_checkpoints)

    def _kept(self) -> str:
        steps = checkpoint.checkpoint_steps(self.checkpoints)
        return f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint"

    def _resume(self) -> None:
        """Continue from the newest intact checkpoint; damaged ones after it are set aside, and said."""
        # The first process cleans up before the others look.
        if not self.place.first:
            processes.wait()
        self._resume_from_newest()
        if self.place.first:
            # A call that was killed after it had saved may have kept more, and the last step is not saved again.
            if self.step > 0:
                checkpoint.prune_checkpoints(self.checkpoints, self.settings.keep_checkpoints)
            processes.wait()

    def _resume_from_newest(self) -> None:
        checkpoint.clean_partial(self.checkpoints)
        damaged: dict[int, checkpoint.DamagedCheckpointError] = {}
        for step in reversed(checkpoint.checkpoint_steps(self.checkpoints)):
            try:
                self._load(step)
            except checkpoint.DamagedCheckpointError as error:
                damaged[step] = error
                continue
            for bad, problem in damaged.items():
                aside = checkpoint.set_aside(self.checkpoints, bad)
                tqdm.write(f"warning: {problem}; it is now {aside}, and training goes on from step {step}")
            return
        for problem in damaged.values():  # and no other
            raise problem

    def _load(self, step: int) -> None:
        """Take over all of a checkpoint, or nothing of it."""
        state = checkpoint.load_state(self.checkpoints, step)
        names = [*self.modules, *(f"ema_{name}" for name in self.modules), "optimizer"]
        groups = {name: checkpoint.load_tensors(self.checkpoints, step, name) for name in names}
        for name, module in self.modules.items():
            load_complete(module, groups[name])
            self.ema.load(name, groups[f"ema_{name}"])
        self.optimiser.load_state(groups["optimizer"], self.device)
        self.step, self.skipped = step, int(state["skipped"])
        self.change.bad_in_a_row.fill_(float(state["bad_in_a_row"]))
        losses, norms = state.get("unreported", ([], []))  # earlier versions stored none
        self.unreported = [(label, loss) for label, loss in losses], norms

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number


def _all_finite(groups: Mapping[str, Mapping[str, Tensor]]) -> bool:
    checks = [tensor.isfinite().all() for tensors in groups.values() for tensor in tensors.values()]
    return bool(torch.stack(checks).all())


def _trainable(modules: Mapping[str, nn.Module]) -> tuple[list[str], list[nn.Parameter]]:
    pairs = [(f"{name}.{key}", p) for name, module in modules.items() for key, p in module.named_parameters()]
    return [name for name, _ in pairs], [parameter for _, parameter in pairs]


def _outer(modules: Mapping[str, nn.Module]) -> set[str]:
    """Return the names of the parameters in the layers that modules list as `outer_layers`."""
    layers = {f"{name}.{layer}" for name, module in modules.items() for layer in getattr(module, "outer_layers", ())}
    return {name for name in _trainable(modules)[0] if any(name.startswith(f"{layer}.") for layer in layers)}

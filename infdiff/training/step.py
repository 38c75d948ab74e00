"""One optimiser step, from batches to changed weights: eager, compiled, or recorded as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from infdiff import processes
from infdiff.cuda_graphs import Recorder, RepeatedCalls
from infdiff.errors import UserError, first_line
from infdiff.labelled import Labelled
from infdiff.precision import number_formats
from infdiff.seeding import derive_seed, seed_global
from infdiff.training.compiled import why_not_compiled
from infdiff.training.narrow_weights import bfloat16_weights
from infdiff.training.optimiser import Optimiser
from infdiff.training.settings import OptimiserSettings
from infdiff.training.sharded import clip_gradients

# A batch is what the data yields: images, images at points, or latents.
Objective = Callable[[Mapping[str, nn.Module], Any, torch.Generator], Tensor]

# Sizes, or rates of points, whose steps are kept as CUDA graphs. They share their memory.
_MOST_GRAPHS = 8


class VariedObjective(Protocol):
    """An objective whose shapes depend on the step, with arithmetic of its own that can be compiled."""

    def fixed(self, batch: Any, seed: int) -> tuple[Hashable, Objective]:
        """Return the objective of the step with that seed, and what decides its shapes in addition to the batch's."""

    def compiled(self) -> Objective:
        """Return the objective with its own arithmetic compiled."""


class TrainingStep:
    """Changes the weights of `modules` by one step on batches. All its randomness is a function of (seed, step).

    Nothing in it waits for the host, and what changes from step to step is in tensors, so that it can be recorded:
    `bad_in_a_row`, the learning rate, the batches, the seeds of the generators. notes: a line on each way to run faster
    that was not taken although the settings leave it open.
    Processes that train together (`processes.together`) each have their part of every batch; gradients, and with them
    their norm, the loss and what is skipped, are those of the global batch. stop: 1 once this process is asked to stop.
    varied: some steps freeze parameters. Raises UserError for settings that the device cannot follow.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        objective: Objective,
        optimiser: Optimiser,
        settings: OptimiserSettings,
        device: torch.device,
        seed: int,
        varied: bool = False,
    ) -> None:
        settings.check_device(device)
        self.modules, self.objective, self.optimiser = modules, objective, optimiser
        self.settings, self.device, self.seed = settings, device, seed
        self.notes: list[str] = []
        self.generator = torch.Generator(device)
        self.bad_in_a_row = torch.zeros((), device=device)
        self.parameters = [p for module in modules.values() for p in module.parameters()]
        self._number = 0
        self._tried: set[Hashable] = set()
        self.place = processes.joined()
        self.stop = torch.zeros((), device=device)
        self.sharded = settings.shards(self.place.count)
        if settings.parallel == "fsdp" and not self.sharded:
            self.notes.append("train.parallel: fsdp: one process holds everything; start several with torchrun")
        recorder = Recorder(device, [self.generator]) if settings.records(device) and self.place.count == 1 else None
        self.graphs = RepeatedCalls(recorder, most=_MOST_GRAPHS, on_close=self._graphs_failed)
        self.compiled = settings.compiles(device) and self._compiles()
        if self.compiled:
            for module in modules.values():
                # A size has its own code: one for all sizes would be slower, and there are few.
                module.compile(dynamic=False)
            if hasattr(objective, "compiled"):
                self.objective = cast(VariedObjective, objective).compiled()
        self.shared = _share(modules, varied) if self.place.count > 1 and not self.sharded else None

    def __call__(self, number: int, batches: Sequence[Any], frozen: Sequence[nn.Parameter]) -> Tensor:
        """Take step `number` and return scalars (5,).

        The loss, the gradient's norm, 1 if it was skipped, how many in a row, how many processes were asked to stop.
        frozen: parameters that stay as they are.
        """
        self._number = number
        self.optimiser.rate.fill_(self.settings.rate(number))
        shapes, objective = self._fixed(batches[0])
        key = (shapes, tuple((type(batch), batch.shape) for batch in batches), tuple(map(id, frozen)))
        change, parts = (self._change, batches) if not _labelled(batches) else (self._change_labelled, _parts(batches))
        call: Callable[..., Tensor] = partial(change, objective, frozen)
        if all(isinstance(part, Tensor) for part in parts):  # a recorded step has tensors to copy new ones into
            call = self.graphs.of(key, lambda: partial(change, objective, frozen))
        buffers = self._buffers() if self.compiled and key not in self._tried else []
        self._start_anew()
        try:
            scalars = call(*parts)
        except RuntimeError as error:
            if not self._compiler_failed(error):
                raise
            for buffer, value in buffers:
                buffer.copy_(value)
            return self(number, batches, frozen)
        self._tried.add(key)
        return scalars

    def _change(self, objective: Objective, frozen: Sequence[nn.Parameter], *batches: Any) -> Tensor:
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            with _without_gradient(frozen), self._gradients(last=number == len(batches)):
                narrow = self.settings.uses_bfloat16(self.device)
                # Sharded weights are there within their block alone, where autocast casts them to the same numbers.
                together = narrow and not self.sharded
                weights = bfloat16_weights(self.modules.values()) if together else nullcontext()
                with number_formats(self.device, bfloat16=narrow, static=True), weights:
                    loss = self._loss(objective, batch) / len(batches)
                loss.backward()
            total += loss.detach()
        total, stop = processes.total(torch.stack([total / self.place.count, self.stop])).unbind()
        clip = clip_gradients if self.sharded else nn.utils.clip_grad_norm_
        norm = clip(self.parameters, self.settings.clip or math.inf)
        bad = not_finite(norm, total)
        self.optimiser.step(bad)
        self.bad_in_a_row.add_(bad).mul_(bad)
        return torch.stack([total, norm, bad, self.bad_in_a_row, stop])

    def _change_labelled(self, objective: Objective, frozen: Sequence[nn.Parameter], *parts: Any) -> Tensor:
        """`_change` for labelled batches, of which the examples and the labels are given by turns."""
        return self._change(objective, frozen, *map(Labelled, parts[::2], parts[1::2]))

    def _loss(self, objective: Objective, batch: Tensor) -> Tensor:
        if self.shared is None:
            return objective(self.modules, batch, self.generator)
        return self.shared(objective, batch, self.generator)

    def _gradients(self, *, last: bool) -> AbstractContextManager[object]:
        """Gradients are summed here while they accumulate, and averaged over the processes with the last batch.

        Sharded ones are averaged with every batch: until then they would be complete in each process.
        """
        return nullcontext() if self.shared is None or last else self.shared.no_sync()

    def _fixed(self, batch: Any) -> tuple[Hashable, Objective]:
        if not hasattr(self.objective, "fixed"):
            return None, self.objective
        return cast(VariedObjective, self.objective).fixed(batch, self._step_seed())

    def _step_seed(self) -> int:
        return derive_seed(self.seed, "step", self._number)

    def _start_anew(self) -> None:
        """Seed every generator, and drop what an attempt may have left."""
        # Dropout draws from the global generators, in each process for its own part of the batch.
        own = (self.place.rank,) if self.place.rank else ()
        seed_global(self.device, self.seed, "dropout", self._number, *own)
        self.generator.manual_seed(self._step_seed())
        for parameter in self.parameters:
            parameter.grad = None

    def _compiles(self) -> bool:
        if self.sharded:
            self.notes.append("train.compile: steps run without torch.compile, untried with train.parallel: fsdp")
            return False
        problem = why_not_compiled(self.device)
        if problem:
            self.notes.append(f"train.compile: steps run without torch.compile, which does not work here: {problem}")
        return problem is None

    def _compiler_failed(self, error: RuntimeError) -> bool:
        """Return True after switching torch.compile off, where that is what failed.

        Raises UserError if the settings insist on it.
        """
        if not self.compiled:
            return False
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            return False
        reason = first_line(getattr(error, "inner_exception", error))
        if self.settings.compile is True:
            raise UserError(f"train.compile: a network cannot be compiled: {reason}") from error
        self.compiled = False
        for module in self.modules.values():
            module._compiled_call_impl = None
        self.notes.append(f"train.compile: steps go on without torch.compile, which failed: {reason}")
        return True

    def _graphs_failed(self, error: RuntimeError) -> None:
        if self.settings.graph is True:
            raise UserError(f"train.graph: a step cannot be recorded: {first_line(error)}") from error
        self.notes.append(f"train.graph: steps go on one kernel at a time; recording failed: {first_line(error)}")
        self._start_anew()

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        return [(buffer, buffer.clone()) for module in self.modules.values() for buffer in module.buffers()]


def not_finite(a: Tensor, b: Tensor) -> Tensor:
    """1.0 if a number () of the two is infinite or NaN, else 0.0: what is finite is 0 times 0, in few kernels."""
    return (a * 0 * b).ne(0).float()


def _labelled(batches: Sequence[Any]) -> bool:
    return all(isinstance(batch, Labelled) for batch in batches)


def _parts(batches: Sequence[Labelled]) -> list[Any]:
    return [part for batch in batches for part in (batch.examples, batch.labels)]


class _Loss(nn.Module):
    """Modules as one, whose output is the loss: what `DistributedDataParallel` averages the gradients of."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(modules)

    def forward(self, objective: Objective, batch: Tensor, generator: torch.Generator) -> Tensor:
        return objective(dict(self.networks.items()), batch, generator)


def _share(modules: Mapping[str, nn.Module], varied: bool) -> DistributedDataParallel:
    loss = _Loss(modules)
    # Running statistics are those of the global batch in every process already.
    names = [name for name, _ in loss.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(loss, names)
    return DistributedDataParallel(loss, gradient_as_bucket_view=True, find_unused_parameters=varied)


@contextmanager
def _without_gradient(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

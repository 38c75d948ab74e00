"""Dry run of a configuration: its model, parameters, operations and memory, and two training steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from infdiff.benchmark.flops import flop_counter
from infdiff.config.settings import Config
from infdiff.coordinates import Size, format_size
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sizes import batch_sizes
from infdiff.runs.data import Data
from infdiff.runs.training import build_trainer

_STEPS = 2
_GIB = 1024**3
# Weight, gradient, two moments of Adam and the EMA weight, each in float32.
_BYTES_A_PARAMETER = 5 * 4


@dataclass(frozen=True)
class ImageCost:
    """Cost of one image in a training step: FLOP, forward and backward, and bytes saved for backward in float32."""

    flop: int
    saved_bytes: int


def cost_of(config: Config, size: Size) -> ImageCost:
    """Count the cost on the meta device, without weights or data."""
    with torch.device("meta"):
        modules = build_modules(config)
        own = {_storage(p) for module in modules.values() for p in module.parameters()}
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in own:
                saved[_storage(tensor)] = tensor  # kept alive, so that the address of its storage stays unique
            return tensor

        with flop_counter() as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            method_of(config).trace(modules, size).sum().backward()
    return ImageCost(counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))


def describe(config: Config) -> Iterator[str]:
    """Yield lines on the parts of the model, its parameters, operations and memory at each size."""
    with torch.device("meta"):
        modules = build_modules(config)
    for name, module in modules.items():
        yield f"{name}: {type(module).__name__}, {_count(module):,} parameters"
        for path, part in _parts(module):
            yield f"  {path:28} {type(part).__name__:16} {_count(part):>13,}"
    parameters = sum(_count(module) for module in modules.values())
    yield f"{parameters:,} parameters in all"
    largest = 0
    for size, batch in batch_sizes(config).items():
        cost = cost_of(config, size)
        largest = max(largest, batch * cost.saved_bytes)
        features = f"{batch * cost.saved_bytes / _GIB:,.2f} GiB of features for {batch} images"
        yield f"{format_size(size)}: {cost.flop / 1e9:,.2f} GFLOP an image in a training step, {features}"
    state = parameters * _BYTES_A_PARAMETER / _GIB
    yield (
        f"memory: about {state + largest / _GIB:,.2f} GiB, {state:,.2f} of them for weights, gradients, moments and "
        "EMA; features in float32, half as much with bfloat16"
    )


def dry_run(config: Config, data: Data, device: torch.device, say: Callable[[str], None]) -> None:
    """Describe the training, and train for two steps; nothing is written."""
    for line in describe(config):
        say(line)
    trainer = build_trainer(config, data, Path(), device)
    batches = trainer.batches(0)
    for step in range(1, _STEPS + 1):
        started = time.perf_counter()
        loss = float(trainer.train_step(batches).loss)
        say(f"step {step}: loss {loss:.4f}, {time.perf_counter() - started:.2f} s")
    say("dry run: nothing is kept")


def _parts(module: nn.Module, depth: int = 2, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_children():
        if _count(part):
            yield prefix + name, part
            if depth > 1 and _count(part) > _count(module) / 2:
                yield from _parts(part, depth - 1, f"{prefix}{name}.")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata

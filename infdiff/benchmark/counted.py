"""Counts of training and sampling steps: FLOP, launches and bytes, on the meta device as CUDA would run them."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from operator import sub
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from infdiff.benchmark.as_on_cuda import CUDA, AsOnCuda, MetaGenerator
from infdiff.benchmark.cost import Setting
from infdiff.benchmark.launches import PartCounter, SavedForBackward
from infdiff.benchmark.steps import at_setting
from infdiff.config.settings import Config
from infdiff.methods.checks import check_config
from infdiff.methods.infinity_diff import InfinityDiff
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sampling import SamplingOptions
from infdiff.precision import with_bfloat16_weights
from infdiff.tables import text_table
from infdiff.training.ema import Ema
from infdiff.training.narrow_weights import bfloat16_weights
from infdiff.training.optimiser import Optimiser
from infdiff.training.step import not_finite

_GIB = 1024**3
_REST = "noise and points"
# Steps of the sampler, and after which of its evaluations of the network counting begins: one like most others.
_STEPS, _FROM = 4, 2


class PartCount(NamedTuple):
    """FLOP, operators launched and bytes that they move, as `PartCounter` counts them."""

    flop: int
    launches: int
    moved: int

    @classmethod
    def of(cls, counter: PartCounter, part: str) -> PartCount:
        return cls(counter.flop[part], counter.launches(part), counter.moved[part])


@dataclass(frozen=True)
class StepCount:
    """Counts of one step, by part. saved_bytes: of features kept for backward.

    weight_bytes: of copies of weights in bfloat16, kept for backward in addition.
    """

    setting: Setting
    parts: dict[str, PartCount]
    parameters: int
    saved_bytes: int = 0
    weight_bytes: int = 0

    @property
    def flop(self) -> int:
        return sum(part.flop for part in self.parts.values())

    @property
    def launches(self) -> int:
        return sum(part.launches for part in self.parts.values())

    @property
    def moved_bytes(self) -> int:
        return sum(part.moved for part in self.parts.values())

    def record(self) -> dict[str, Any]:
        """Return the counts as a record for JSON."""
        batch = self.setting.batch
        return self.setting.record() | {
            "flop": self.flop,
            "flop_per_image": self.flop / batch,
            "launches": self.launches,
            "moved_bytes": self.moved_bytes,
            "parameters": self.parameters,
            "saved_bytes": self.saved_bytes,
            "weight_bytes": self.weight_bytes,
            "parts": {
                name: {"flop_per_image": part.flop / batch, "launches": part.launches, "moved_bytes": part.moved}
                for name, part in self.parts.items()
            },
        }

    def as_text(self) -> str:
        """Return a table of the parts, and the sums."""
        rows = {**self.parts, "all": PartCount(self.flop, self.launches, self.moved_bytes)}
        table = text_table(
            [
                {
                    "what": name,
                    "GFLOP an image": f"{part.flop / self.setting.batch / 1e9:,.1f}",
                    "launches": f"{part.launches:,}",
                    "GB moved": f"{part.moved / 1e9:,.1f}",
                }
                for name, part in rows.items()
            ]
        )
        lines = [
            f"{self.setting.describe()}, counted for CUDA, not measured",
            "",
            table,
            "",
            f"{self.parameters:,} parameters",
        ]
        if self.saved_bytes:
            weights = f" and {self.weight_bytes / _GIB:,.2f} GiB of weights in bfloat16" if self.weight_bytes else ""
            lines.append(f"saved for backward: {self.saved_bytes / _GIB:,.2f} GiB of features{weights}")
        return "\n".join(lines)


def count_training(config: Config, setting: Setting) -> StepCount:
    """Count a training step of one batch: draws, networks under autocast, backward, clipping, optimiser, EMA.

    Raises UserError when the configuration cannot work at the setting.
    """
    config = at_setting(config, setting)
    modules = _modules(config)
    named = {f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters()}
    parameters = list(named.values())
    objective, ema = method_of(config).objective(), Ema(modules, config.train.ema_decay)
    images = torch.empty(setting.batch, 3, *setting.size, dtype=torch.uint8, device="meta")
    counter, saved = PartCounter(_REST), SavedForBackward(parameters)
    with AsOnCuda() as device, ExitStack() as parts:
        outer = {f"{name}.{layer}." for name, m in modules.items() for layer in getattr(m, "outer_layers", ())}
        within = {name for name in named if name.startswith(tuple(outer))}
        optimiser = Optimiser(list(named), parameters, config.train, within)
        for group in optimiser.adamw.param_groups:
            group["lr"] = 0.0  # with a tensor, as in training, the fused operator is not known to the meta device
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimiser.step(torch.zeros((), device=CUDA))  # the first step also makes the moments
        for name, module in modules.items():
            parts.enter_context(counter.within(module, name))
        with torch.no_grad():  # what the first step keeps for all others, as the matrices of T
            objective(modules, images, MetaGenerator())
        with counter:
            narrow: AbstractContextManager[list[Tensor]] = nullcontext([])
            if config.train.bfloat16:
                narrow = bfloat16_weights(modules.values())
            with saved, device.autocast(config.train.bfloat16), narrow as together:
                loss = objective(modules, images, MetaGenerator())
                copies = [*device.copies.values(), *together]
            counter.part = "backward"
            loss.backward()
            counter.part = "optimiser"
            norm = _clip([p.grad for p in parameters if p.grad is not None], config.train.clip or torch.inf)
            optimiser.step(not_finite(norm, loss.detach()))
            ema.update(modules, 0)
    names = (*modules, "backward", "optimiser", _REST)
    counts = {name: PartCount.of(counter, name) for name in names}
    features = saved.nbytes() - saved.nbytes(copies)
    weight_bytes = sum(copy.nbytes for copy in copies if copy.dim() > 1)
    return StepCount(setting, counts, sum(p.numel() for p in parameters), features, weight_bytes)


def count_sampling(config: Config, setting: Setting) -> StepCount:
    """Count one evaluation of the network by the sampler, and what the sampler does with it."""
    check_config(config)
    method, denoiser, batch = method_of(config), _modules(config)["denoiser"].eval(), setting.batch
    if config.train.bfloat16:
        denoiser = with_bfloat16_weights(denoiser)
    options = SamplingOptions.of(method, setting.size, upscale="none", steps=min(_STEPS, method.most_steps or _STEPS))
    counter, seen = PartCounter("sampler"), list[dict[str, PartCount]]()

    def noise() -> Tensor:
        return method.process.noise(batch, 3, setting.size, [MetaGenerator() for _ in range(batch)])

    with AsOnCuda() as device, torch.no_grad(), counter.within(denoiser, "denoiser"):
        z = torch.empty(batch, config.latent_dim, device="meta") if config.latent_dim else None
        network: Any = denoiser
        if isinstance(method, InfinityDiff):
            network = method.network_at(denoiser, setting.size, z, batch, CUDA, options.tile)
        evaluate: Any = method.process.denoiser(network)

        def counted(x: Tensor, t: Any) -> Tensor:
            with device.autocast(config.train.bfloat16):
                estimate: Tensor = evaluate(x, t)
            counter.part = "sampler"
            seen.append({name: PartCount.of(counter, name) for name in ("denoiser", "sampler")})
            return estimate

        with counter:
            method.sampler(options)(counted, noise, noise)
    before, after = seen[_FROM - 1], seen[min(_FROM, len(seen) - 1)]
    counts = {name: PartCount(*map(sub, after[name], before[name])) for name in after}
    return StepCount(setting, counts, sum(p.numel() for p in denoiser.parameters()))


def _clip(gradients: list[Tensor], most: float) -> Tensor:
    """`clip_grad_norm_` as it runs on CUDA; on the meta device it would take the tensors one by one."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _modules(config: Config) -> dict[str, nn.Module]:
    with torch.device("meta"):
        return build_modules(config)

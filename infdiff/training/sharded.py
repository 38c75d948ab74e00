"""Networks that several processes hold in parts: each keeps some rows of every weight, gradient, moment and EMA weight.

FSDP2 (`torch.distributed.fsdp.fully_shard`) gathers the weights of a block where it runs, drops them after it, and
averages gradients into rows. Optimiser and EMA work on a process's own rows as plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from infdiff import processes
from infdiff.training.ema import Ema


def shard(modules: Mapping[str, nn.Module], device: torch.device) -> None:
    """Leave each process its rows of all parameters, on the device; networks may be elsewhere before.

    They run as before, if all processes run them together. Parameters are other objects afterwards.
    """
    # They take a second to import, which a run on one device need not wait for.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.joined().count,))
    for network in modules.values():
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP2 takes no other layout
        if hasattr(network, "modulated"):
            # Weights of all blocks at once are what no process holds: each norm makes its own modulation.
            cast(Any, network).modulated = []
        for block in _blocks(network):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Members of lists that are made of layers: what runs one after the other."""
    for stage in [module for module in network.modules() if isinstance(module, nn.ModuleList)]:
        for block in stage:
            holds = any(True for _ in block.children()) and any(True for _ in block.parameters())
            if holds and not isinstance(block, nn.ModuleList):
                yield block


def own_part(tensor: Tensor) -> Tensor:
    """The rows of a sharded parameter or gradient that are here, in the same memory; any other tensor itself."""
    if not is_sharded(tensor):
        return tensor
    local: Tensor = cast(Any, tensor).to_local()
    return local.detach()


def is_sharded(tensor: Tensor) -> bool:
    """Return True for a parameter, or its gradient, of which other processes hold other rows."""
    return hasattr(tensor, "to_local")


def own_rows(values: Tensor) -> Tensor:
    """This process's rows of complete values (N, ...): one of equal parts by rank, of which the last may be shorter."""
    place = processes.joined()
    each = -(-len(values) // place.count)
    return values[place.rank * each : (place.rank + 1) * each]


def gathered(part: Tensor, rows: int) -> Tensor:
    """The complete values (rows, ...) in every process, from the rows of each; a call of all processes."""
    count = processes.joined().count
    each = -(-rows // count)
    padded = part.new_zeros(each, *part.shape[1:])
    padded[: len(part)] = part
    complete = part.new_empty(count * each, *part.shape[1:])
    distributed.all_gather([*complete.chunk(count)], padded)
    return complete[:rows]


def collected(part: Tensor, rows: int) -> Tensor:
    """The complete values on the host of the first process, which writes them; nothing in the others."""
    complete = gathered(part, rows)
    return complete.cpu() if processes.joined().first else complete.new_empty(0, device="cpu")


def complete_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module for a checkpoint: `state_dict` without shards. Only that of the first process counts."""
    state = module.state_dict()
    return {name: collected(own_part(v), len(v)) if is_sharded(v) else v for name, v in state.items()}


def load_complete(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `complete_state` returned into a module of any number of processes."""
    state = module.state_dict()
    if not any(map(is_sharded, state.values())):
        module.load_state_dict(tensors)
        return
    parts = {name: own_part(v) for name, v in state.items() if is_sharded(v)}
    _load(parts, {name: v for name, v in state.items() if name not in parts}, tensors)


def _load(parts: Mapping[str, Tensor], others: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    if different := sorted((parts.keys() | others.keys()) ^ tensors.keys()):
        raise RuntimeError(f"the network and the file do not have the same weights: {different}")
    for name, part in parts.items():
        part.copy_(own_rows(tensors[name]))
    for name, value in others.items():
        value.copy_(tensors[name])


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale gradients to a norm of `most` at most, and return the norm (): that of all processes' rows."""
    gradients = [own_part(p.grad) for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([gradient for gradient in gradients if gradient.numel()])
    norm = processes.total(norm.double().square()).sqrt().float()
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))  # as PyTorch's clip_grad_norm_
    return norm


class ShardedEma(Ema):
    """EMA weights of which each process keeps its rows. `modules` are complete from `gather` to the next update.

    They are made before the networks are sharded.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float, device: torch.device) -> None:
        super().__init__(modules, decay)
        self.parts: dict[str, dict[str, Tensor]] = {}
        self.rows: dict[str, dict[str, int]] = {}
        for name, module in self.modules.items():
            named = dict(module.named_parameters())
            self.parts[name] = {key: own_rows(p.detach()).to(device).contiguous().clone() for key, p in named.items()}
            self.rows[name] = {key: len(p) for key, p in named.items()}
        self._complete = True
        self._release()
        for module in self.modules.values():
            module.to(device)  # buffers are left

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module], n: int) -> None:
        self._release()
        weight = self._weight(n)
        for name, parts in self.parts.items():
            sources = dict(modules[name].named_parameters())
            torch._foreach_lerp_(list(parts.values()), [own_part(sources[key]) for key in parts], weight)

    @torch.no_grad()
    def gather(self) -> None:
        if self._complete:
            return
        for name, module in self.modules.items():
            for key, parameter in module.named_parameters():
                parameter.data = gathered(self.parts[name][key], self.rows[name][key])
        self._complete = True

    def load(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self._release()
        buffers = {key: v for key, v in self.modules[name].state_dict().items() if key not in self.parts[name]}
        _load(self.parts[name], buffers, tensors)

    def _release(self) -> None:
        if self._complete:
            for module in self.modules.values():
                for parameter in module.parameters():
                    parameter.data = parameter.new_empty(0)
        self._complete = False

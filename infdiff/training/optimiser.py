"""The optimiser: AdamW for every parameter, or Muon for the matrices among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infdiff.training.settings import OptimiserSettings
from infdiff.training.sharded import collected, gathered, is_sharded, own_part, own_rows

_MOMENTUM = 0.95
# The quintic of Jordan et al. 2024: five times over, it brings singular values from 0.001 on to between 0.7 and 1.2.
_A, _B, _C, _TIMES = 3.4445, -4.7750, 2.0315, 5
# Root mean square of an AdamW update in units of its learning rate (Liu et al. 2025, section 2.2).
_ADAMW_UPDATE = 0.2
# Rows and columns from which a weight is a map between features, and not one of few values.
_SMALLEST = 16
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimiser:
    """AdamW, and with `settings.optimiser: muon` Muon for weights that `is_matrix` names, without those in `outer`.

    No step waits for the host, and the learning rate is a tensor, so that a recorded step follows its schedule. State
    is named by parameter, so that it can be kept with a checkpoint. Of sharded parameters it changes the rows that are
    here, and holds moments of these.
    """

    def __init__(
        self,
        names: Sequence[str],
        parameters: Sequence[nn.Parameter],
        settings: OptimiserSettings,
        outer: Collection[str] = (),
    ) -> None:
        self.settings = settings
        named = dict(zip(names, parameters, strict=True))
        muon = settings.optimiser == "muon"
        self.sharded = {name: p for name, p in named.items() if is_sharded(p)}
        self.rows = {name: len(p) for name, p in self.sharded.items()}
        parts = {name: own_part(p) for name, p in named.items()}
        self.matrices = {name: parts[name] for name, p in named.items() if muon and is_matrix(p) and name not in outer}
        self.others = {name: p for name, p in parts.items() if name not in self.matrices}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        # In float64 on a CPU, whose kernels compute in it; those of CUDA read float32.
        device = parameters[0].device
        self.rate = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        self.adamw = torch.optim.AdamW(
            list(self.others.values()),
            lr=0.0,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        for group in self.adamw.param_groups:
            group["lr"] = self.rate

    def step(self, bad: Tensor) -> None:
        """Take a step with learning rate `self.rate`, and drop the gradients; bad (): where it is 1, nothing changes.

        Parameters without a gradient are left alone: weights and moments stay as they are.
        """
        self._take_gradients()
        for group in self.adamw.param_groups:
            # PyTorch asks for it while a step is recorded, and advises against it otherwise.
            group["capturable"] = bad.is_cuda and torch.cuda.is_current_stream_capturing()
        # The fused optimiser changes nothing if this is 1, and the host need not know.
        self.adamw.grad_scale, self.adamw.found_inf = None, bad  # type: ignore[attr-defined]
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        if self.matrices:
            self._muon_step(self.rate * self.settings.muon_scale, bad)

    def _take_gradients(self) -> None:
        """Move the gradients of sharded parameters to the rows that the optimiser changes."""
        for name, parameter in self.sharded.items():
            part = self.matrices[name] if name in self.matrices else self.others[name]
            part.grad = None if parameter.grad is None else own_part(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def _muon_step(self, rate: Tensor, bad: Tensor) -> None:
        """Muon with Nesterov momentum; matrices of one shape take their products together.

        A bad step multiplies every change by 0, which leaves the numbers as they were to the last bit.
        """
        shapes: dict[tuple[int, int], list[str]] = {}  # of the complete matrices
        for name, parameter in self.matrices.items():
            if parameter.grad is not None:
                shape = self.rows.get(name, len(parameter)), parameter.flatten(1).shape[1]
                shapes.setdefault(shape, []).append(name)
        good = 1 - bad
        for shape, names in shapes.items():
            own = len(self.matrices[names[0]])
            updates = torch.empty(len(names), own, shape[1], device=bad.device)
            for name, update in zip(names, updates, strict=True):
                gradient, momentum = self.matrices[name].grad, self.momentum[name]
                assert gradient is not None
                gradient.masked_fill_(bad > 0, 0.0)  # what is not finite stays so when it is multiplied by 0
                momentum.lerp_(gradient, (1 - _MOMENTUM) * good)
                torch.lerp(gradient, momentum, _MOMENTUM, out=update.view(gradient.shape))
            decay = (rate * self.settings.weight_decay).float() * good
            scale = (rate * _ADAMW_UPDATE * max(shape) ** 0.5).float() * good
            if names[0] in self.sharded:  # singular values are those of complete matrices
                updates = gathered(updates.transpose(0, 1), shape[0]).transpose(0, 1).contiguous()
            for name, direction in zip(names, orthogonalised(updates), strict=True):
                parameter = self.matrices[name]
                direction = own_rows(direction) if name in self.sharded else direction
                if self.settings.weight_decay:
                    parameter.mul_(1 - decay)
                parameter.addcmul_(direction.view(parameter.shape), -scale)
                parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """The moments by "name:moment": AdamW's of parameters that have been changed, Muon's of every matrix.

        Where they are sharded, a call of all processes, and complete in the first.
        """
        kept = {
            f"{name}:{key}": self._complete(name, value)
            for name, parameter in self.others.items()
            for key, value in self.adamw.state[parameter].items()
        }
        return kept | {f"{name}:momentum": self._complete(name, value) for name, value in self.momentum.items()}

    def _complete(self, name: str, value: Tensor) -> Tensor:
        return collected(value, self.rows[name]) if name in self.sharded and value.ndim else value

    def load_state(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take up what `state` gave."""
        for name, parameter in self.others.items():
            if f"{name}:step" not in tensors:
                continue  # frozen in every step so far
            values: dict[str, Any] = {"step": tensors[f"{name}:step"].to(device)}
            for key in _MOMENTS:
                # In the parameter's memory layout, so that sums run in the order of an uninterrupted run.
                values[key] = torch.empty_like(parameter).copy_(self._own(name, tensors[f"{name}:{key}"]))
            self.adamw.state[parameter] = values
        for name, momentum in self.momentum.items():
            momentum.copy_(self._own(name, tensors[f"{name}:momentum"]))

    def _own(self, name: str, value: Tensor) -> Tensor:
        return own_rows(value) if name in self.sharded else value


def is_matrix(parameter: Tensor) -> bool:
    """Return True for a weight that maps features to features: linear or a convolution, and not depthwise."""
    if parameter.ndim not in (2, 4) or parameter.shape[1] == 1:
        return False
    return min(parameter.flatten(1).shape) >= _SMALLEST


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with singular values brought near 1: Newton-Schulz (Jordan et al. 2024).

    The iterations run on the smaller Gram matrix, of which the iterated matrix is a polynomial times the first one.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    x = matrices.float()
    gram = x @ x.mT  # (N, rows, rows), symmetric; all that follows commutes
    square = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-14  # of the Frobenius norm
    gram = gram / square
    identity = torch.eye(gram.shape[1], device=x.device)
    product = square.rsqrt() * identity
    for left in reversed(range(_TIMES)):
        factor = torch.baddbmm(_A * identity + _B * gram, gram, gram, alpha=_C)
        product = factor @ product
        if left:
            gram = factor @ gram @ factor
    return (product @ x).to(matrices.dtype)

"""A condition together with what every norm of a network makes of it: small products, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.ops.registration import autocast

if TYPE_CHECKING:
    from infdiff.nn.norm import ModulatedLayerNorm

# Where a layer's own product costs less than putting the weights of all side by side.
_ONE_BY_ONE = ("cpu",)


class Condition(NamedTuple):
    """A condition (B, D), and by the norms' `place` the modulations (B, 2 C) and latent scales (B, C) of it."""

    vector: Tensor
    modulations: tuple[Tensor, ...]
    latent_scales: tuple[Tensor, ...]


# What blocks take: norms make of a tensor by themselves what they need.
Given = Condition | Tensor


def vector_of(condition: Given) -> Tensor:
    """The condition (B, D) itself."""
    return condition.vector if isinstance(condition, Condition) else condition


def together(norms: Sequence[ModulatedLayerNorm], condition: Tensor) -> Given:
    """The condition (B, D) of a network whose modulated norms, by `place`, are these."""
    if not norms or condition.device.type in _ONE_BY_ONE:
        return condition
    length = norms[0].condition_dim
    (condition,) = autocast(condition)  # once for both products
    # In one piece each, so that their gradients are put side by side in one pass.
    own, latent = condition.split([length, condition.shape[1] - length], dim=1)
    modulations = _products([norm.modulation for norm in norms], own)
    scales = _products([norm.latent_scale for norm in norms], latent)
    return Condition(condition, modulations, scales)


def _products(layers: Sequence[nn.Linear | None], condition: Tensor) -> tuple[Tensor, ...]:
    """Each layer of the condition; of none, where there are no layers."""
    there = [layer for layer in layers if layer is not None]
    if not there:
        return ()
    weight, bias = torch.cat([layer.weight for layer in there]), torch.cat([layer.bias for layer in there])
    return F.linear(condition, weight, bias).split([layer.out_features for layer in there], dim=1)

"""Layer normalisation over channels, modulated by the conditioning vector: one implementation for points and grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from infdiff import ops
from infdiff.nn.condition import Condition, Given


@dataclass(frozen=True)
class Norm:
    """A normalisation as a function of points' features (B, L, C), with what a condition makes of it."""

    layer: nn.LayerNorm
    modulation: Tensor | None
    latent_scale: Tensor | None
    silu: bool

    def __call__(self, x: Tensor) -> Tensor:
        norm_of = ops.modulated_norm_stepwise if by_steps(x) else ops.modulated_norm
        return norm_of(x, self.layer.weight, self.layer.bias, self.modulation, self.latent_scale, self.silu)

    def passing(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The norm of x, or of x + added, and that itself, for a residual connection around it."""
        if by_steps(x):
            total = x if added is None else x + added
            return self(total), total
        own = self.layer.weight, self.layer.bias
        return ops.modulated_norm_passing(x, *own, self.modulation, self.latent_scale, self.silu, added)


class GridNorm(Norm):
    """The same for grids (B, C, G, K)."""

    def __call__(self, x: Tensor) -> Tensor:
        return as_grid(super().__call__(as_rows(x)), x)

    def passing(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if by_steps(x):
            return super().passing(x, added)
        normed, total = super().passing(as_rows(x), None if added is None else as_rows(added))
        return as_grid(normed, x), as_grid(total, x)


class ModulatedLayerNorm(nn.Module):
    """LayerNorm over the channels of points (B, L, C), then x * (1 + scale) + shift from the condition.

    The normalisation is applied whether or not there is a condition. Set `condition_dim` to 0 for a plain LayerNorm.
    The modulation starts at zero, so that a new network ignores its condition. latent_dim: the condition ends with a
    latent of this length, after condition_dim other numbers, which scales the result by itself, times 1 + latent_scale
    (as in AdaGN of Preechakul et al. 2022); 0 for none. The result has the features' type. place: that of this layer's
    part in a `Condition`, among the layers of the network that makes it.
    """

    function: ClassVar[type[Norm]] = Norm

    def __init__(self, channels: int, condition_dim: int = 0, latent_dim: int = 0) -> None:
        super().__init__()
        self.condition_dim = condition_dim
        self.norm = nn.LayerNorm(channels)
        self.modulation = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        self.latent_scale = nn.Linear(latent_dim, channels) if latent_dim else None
        self.place = -1
        for layer in (self.modulation, self.latent_scale):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Given | None = None) -> Tensor:
        return self.of(condition)(x)

    def of(self, condition: Given | None, silu: bool = False) -> Norm:
        """The function of features that a condition makes of this layer; silu: followed by SiLU."""
        modulation = latent_scale = None
        if isinstance(condition, Condition) and self.modulation is not None:
            modulation = condition.modulations[self.place]
            latent_scale = condition.latent_scales[self.place] if self.latent_scale is not None else None
        elif isinstance(condition, Tensor) and self.modulation is not None:
            modulation = self.modulation(condition[:, : self.condition_dim])
            if self.latent_scale is not None:
                latent_scale = self.latent_scale(condition[:, self.condition_dim :])
        return self.function(self.norm, modulation, latent_scale, silu)


def modulated_norms(network: nn.Module) -> list[ModulatedLayerNorm]:
    """The layers of a network that a condition modulates, which then know their places here."""
    found = [m for m in network.modules() if isinstance(m, ModulatedLayerNorm) and m.modulation is not None]
    for place, norm in enumerate(found):
        norm.place = place
    return found


class GridLayerNorm(ModulatedLayerNorm):
    """The same for grids (B, C, G, K); free of copies in channels-last memory."""

    function = GridNorm


def by_steps(x: Tensor) -> bool:
    """Return True on CPUs: PyTorch's own rules are faster there, and keep what the operator computes twice."""
    return x.device.type == "cpu"


def as_rows(grid: Tensor) -> Tensor:
    """(B, C, G, K) -> (B, G K, C), the same memory where channels are last in it."""
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


def as_grid(rows: Tensor, like: Tensor) -> Tensor:
    """The reverse, for a grid of the size of another."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)

"""Layer normalisation over channels, modulated by the conditioning vector: one implementation for points and grids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from infdiff import ops
from infdiff.nn.condition import Condition, Given


class ModulatedLayerNorm(nn.Module):
    """LayerNorm over the channels of points (B, L, C), then x * (1 + scale) + shift from the condition.

    The normalisation is applied whether or not there is a condition. Set `condition_dim` to 0 for a plain LayerNorm.
    The modulation starts at zero, so that a new network ignores its condition. latent_dim: the condition ends with a
    latent of this length, after condition_dim other numbers, which scales the result by itself, times 1 + latent_scale
    (as in AdaGN of Preechakul et al. 2022); 0 for none. The result has the features' type. place: that of this layer's
    part in a `Condition`, among the layers of the network that makes it.
    """

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

    def of(self, condition: Given | None, silu: bool = False) -> Callable[[Tensor], Tensor]:
        """The function of features that a condition makes of this layer; silu: followed by SiLU."""
        modulation = latent_scale = None
        if isinstance(condition, Condition) and self.modulation is not None:
            modulation = condition.modulations[self.place]
            latent_scale = condition.latent_scales[self.place] if self.latent_scale is not None else None
        elif isinstance(condition, Tensor) and self.modulation is not None:
            modulation = self.modulation(condition[:, : self.condition_dim])
            if self.latent_scale is not None:
                latent_scale = self.latent_scale(condition[:, self.condition_dim :])
        return partial(_normalised, self.norm, modulation, latent_scale, silu)


def modulated_norms(network: nn.Module) -> list[ModulatedLayerNorm]:
    """The layers of a network that a condition modulates, which then know their places here."""
    found = [m for m in network.modules() if isinstance(m, ModulatedLayerNorm) and m.modulation is not None]
    for place, norm in enumerate(found):
        norm.place = place
    return found


class GridLayerNorm(ModulatedLayerNorm):
    """The same for grids (B, C, G, K); free of copies in channels-last memory."""

    def of(self, condition: Given | None, silu: bool = False) -> Callable[[Tensor], Tensor]:
        return partial(_on_rows, super().of(condition, silu))


def _normalised(
    norm: nn.LayerNorm, modulation: Tensor | None, latent_scale: Tensor | None, silu: bool, x: Tensor
) -> Tensor:
    # On CPUs PyTorch's own rules are faster: they keep what the operator computes twice.
    norm_of = ops.modulated_norm_stepwise if x.device.type == "cpu" else ops.modulated_norm
    return norm_of(x, norm.weight, norm.bias, modulation, latent_scale, silu)


def _on_rows(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    rows = norm(x.permute(0, 2, 3, 1).flatten(1, 2))
    return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

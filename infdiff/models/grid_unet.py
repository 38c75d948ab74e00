"""The grid network: a U-Net after Nichol and Dhariwal (2021), with channel LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from infdiff.models.unet import Levels, UNet, UNetDown
from infdiff.nn.conv_block import ConvBlock


def sized_levels(
    *,
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attention_sizes: Sequence[int],
    size: int,
    condition_dim: int,
    latent_dim: int = 0,
    dropout: float = 0.0,
    dropout_size: int = 16,
    widen_in: str = "blocks",
) -> Levels:
    """Levels for grids of known sizes. size: the side of the top grid (the longer one, where they differ).

    attention_sizes: the sides of the grids after which attention is applied. dropout acts on grids of at most
    dropout_size. latent_dim: as in `ModulatedLayerNorm`. widen_in: as in `Levels`.
    """
    sides = [-(-size // 2**level) for level in range(len(multipliers))]

    def block(level: int, in_channels: int, width: int, *, attention: bool) -> nn.Module:
        rate = dropout if sides[level] <= dropout_size else 0.0
        return ConvBlock(
            in_channels,
            width,
            condition_dim=condition_dim,
            latent_dim=latent_dim,
            dropout=rate,
            attention=attention,
        )

    return Levels(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        block=block,
        attention=[level for level, side in enumerate(sides) if side in attention_sizes],
        attention_in_middle=bool(attention_sizes),
        widen_in=widen_in,
    )


class GridDown(UNetDown):
    """The down half of the U-Net, also the trunk of the encoder. sized: as `sized_levels`."""

    def __init__(self, *, in_channels: int, **sized: Any) -> None:
        super().__init__(sized_levels(**sized), in_channels)


class GridUNet(UNet):
    """A U-Net on grids: (B, in_channels, G, K) and condition (B, condition_dim) -> (B, out_channels, G, K).

    sized: as `sized_levels`. layout: the condition is also laid out over the deepest grid.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        latent_dim: int = 0,
        layout: bool = True,
        **sized: Any,
    ) -> None:
        levels = sized_levels(condition_dim=condition_dim, latent_dim=latent_dim, **sized)
        layout_dim = condition_dim + latent_dim if layout else 0
        super().__init__(levels, in_channels=in_channels, out_channels=out_channels, layout_dim=layout_dim)

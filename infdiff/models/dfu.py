"""DFU: the U-Net of dual convolutions (Havrilla et al., DFU, section 2 and Fig. 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from torch import nn

from infdiff.models.unet import Levels, UNet, UNetDown
from infdiff.nn.conv_block import ConvBlock
from infdiff.nn.resample import BilinearDownsample, BilinearUpsample
from infdiff.nn.spectral_conv import DualConv


def dual_levels(
    *,
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    modes: int,
    condition_dim: int,
    latent_dim: int = 0,
    attention_levels: Collection[int] = (),
    kernel_size: int = 3,
    factor_rank: int = 0,
    dropout: float = 0.0,
) -> Levels:
    """Levels of dual convolutions, which do not depend on the grid's size.

    multipliers: the channels of each level, the top one first, in units of `channels`; blocks: Dual-FNO blocks a level.
    modes: the lowest M frequencies of the top level's spectral convolutions, halved at each further level (at least 1);
    0 for none: the multi-resolution U-Net. kernel_size: of the spatial taps; 1 for the FNO U-Net. attention_levels: 0
    is the top one. factor_rank: of the spectral weights, 0 for full ones. latent_dim: as in `ModulatedLayerNorm`.
    Raises ValueError for an attention level that is not there and an even kernel_size.
    """
    if not set(attention_levels) <= set(range(len(multipliers))):
        raise ValueError(f"attention_levels={list(attention_levels)}: want levels 0 to {len(multipliers) - 1}")

    def block(level: int, in_channels: int, width: int, *, attention: bool) -> nn.Module:
        held = max(1, modes >> level) if modes else 0
        dual = partial(DualConv, kernel_size=kernel_size, modes=held, factor_rank=factor_rank)
        return ConvBlock(
            in_channels,
            width,
            condition_dim=condition_dim,
            latent_dim=latent_dim,
            dropout=dropout,
            attention=attention,
            convolution=dual,
        )

    return Levels(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        block=block,
        attention=attention_levels,
        attention_in_middle=bool(attention_levels),
        kernel_size=kernel_size,
        downsample=lambda in_channels, channels: BilinearDownsample(),
        upsample=lambda in_channels, channels: BilinearUpsample(),
    )


class DFUDown(UNetDown):
    """The down half of DFU, also the trunk of an encoder. dual: as `dual_levels`."""

    def __init__(self, *, in_channels: int, **dual: Any) -> None:
        super().__init__(dual_levels(**dual), in_channels)


class DFU(UNet):
    """(B, in_channels, H, W) of any size and condition (B, condition_dim) or None -> (B, out_channels, H, W).

    Nothing depends on the size: levels halve the grid (odd sides round up; the up half takes the skip connection's
    size), spatial taps are never rescaled, and spectral ones are the same functions on every grid. layout: the
    condition is also laid out over the deepest grid, for latents that say what lies where. dual: as `dual_levels`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        latent_dim: int = 0,
        layout: bool = False,
        **dual: Any,
    ) -> None:
        levels = dual_levels(condition_dim=condition_dim, latent_dim=latent_dim, **dual)
        layout_dim = condition_dim + latent_dim if layout else 0
        super().__init__(levels, in_channels=in_channels, out_channels=out_channels, layout_dim=layout_dim)

    def spatial_parameters(self, *, except_bottom: bool = False) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the spatial convolutions: K_spatial of Eq. 1, the first and the last convolution.

        except_bottom: without those on the coarsest grid, which appendix C's fine-tuning does not freeze.
        """
        bottom = (f"down.levels.{len(self.levels) - 1}.", "middle.", "levels.0.")
        for name, parameter in self.named_parameters():
            spatial = ".spatial." in name or name.startswith(("down.conv_in.", "conv_out."))
            if spatial and not (except_bottom and name.startswith(bottom)):
                yield name, parameter

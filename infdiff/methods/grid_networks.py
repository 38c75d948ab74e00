"""`model.grid` -> the grid network: inside ∞-Diff's, or alone on whole images."""

from __future__ import annotations

from typing import Any

from infdiff.config import GridConfig
from infdiff.coordinates import Size
from infdiff.errors import UserError
from infdiff.methods.limits import require_at_least_one, require_choices
from infdiff.models import DFU, GridUNet
from infdiff.models.dfu import DFUDown
from infdiff.models.grid_unet import GridDown
from infdiff.models.unet import UNet, UNetDown

KINDS = ("unet", "dfu")


def check_grid(grid: GridConfig) -> None:
    """Raise UserError naming the first setting of `model.grid` that cannot work."""
    require_choices({"model.grid.kind": (grid.kind, KINDS)})
    require_at_least_one({"model.grid.channels": grid.channels, "model.grid.blocks": grid.blocks})
    if not grid.multipliers or min(grid.multipliers) < 1:
        raise UserError("model.grid.multipliers: want at least one level, each at least 1")
    if not 0 <= grid.dropout < 1:
        raise UserError(f"model.grid.dropout: {grid.dropout}: want 0 up to, not including, 1")
    for key in ("modes", "factor_rank"):
        if getattr(grid, key) < 0:
            raise UserError(f"model.grid.{key}: {getattr(grid, key)}: want 0 (none) or more")
    if grid.kernel_size < 1 or grid.kernel_size % 2 == 0:
        raise UserError(f"model.grid.kernel_size: {grid.kernel_size}: want an odd number")
    if grid.scale_with_output and grid.kind != "dfu":
        raise UserError("model.grid.scale_with_output: a grid that follows the image wants model.grid.kind: dfu")
    levels = range(len(grid.multipliers))
    if not set(grid.attention_levels) <= set(levels):
        raise UserError(f"model.grid.attention_levels: {list(grid.attention_levels)}: want levels 0 to {levels[-1]}")


def grid_network(
    grid: GridConfig, *, in_channels: int, out_channels: int, size: Size, condition_dim: int, layout: bool = True
) -> UNet:
    """size: of the top grid, for a network that knows it. layout: the condition also says what lies where."""
    options = _options(grid, size) | {"in_channels": in_channels, "condition_dim": condition_dim}
    if grid.kind == "dfu":
        return DFU(out_channels=out_channels, layout=layout, **options)
    return GridUNet(out_channels=out_channels, layout=layout, **options)


def down_half(grid: GridConfig, *, in_channels: int, size: Size) -> UNetDown:
    """The way down of `grid_network`, without a condition: the trunk of an encoder."""
    kind = DFUDown if grid.kind == "dfu" else GridDown
    return kind(in_channels=in_channels, condition_dim=0, **_options(grid, size))


def modes_held(grid: GridConfig, size: Size) -> int:
    """Of `modes`, those that a top grid of `size` holds along its longer side; none of the levels below holds fewer."""
    return min(grid.modes, (max(size) + 1) // 2)


def _options(grid: GridConfig, size: Size) -> dict[str, Any]:
    shared = {"channels": grid.channels, "multipliers": grid.multipliers, "blocks": grid.blocks}
    shared |= {"dropout": grid.dropout}
    if grid.kind == "dfu":
        # Further ones would stay as they are drawn, until a larger image than those of the training lets them act.
        modes = modes_held(grid, size)
        dual = {"modes": modes, "kernel_size": grid.kernel_size, "factor_rank": grid.factor_rank}
        return shared | dual | {"attention_levels": grid.attention_levels}
    sized = {"size": max(size), "attention_sizes": grid.attention_sizes, "dropout_size": grid.dropout_size}
    return shared | sized

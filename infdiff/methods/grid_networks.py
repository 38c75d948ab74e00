"""`model.grid` -> the grid network, inside that of ∞-Diff or alone on images: one entry of `NETWORKS` a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from infdiff.config.settings import DFUSettings, GridSettings, SparseSettings, UNetSettings
from infdiff.coordinates import Size, format_size
from infdiff.models import DFU, GridUNet, PointDown, PointUNet
from infdiff.models.dfu import DFUDown
from infdiff.models.grid_unet import GridDown
from infdiff.models.unet import UNet, UNetDown

_Settings = TypeVar("_Settings", bound=GridSettings)


@dataclass(frozen=True)
class GridNetwork(Generic[_Settings]):
    """Recipe that turns settings of one kind into a network.

    down: its down half, the trunk of an encoder. options(settings, size): the arguments of both for top grids of a
    size. warnings(settings, size): lines about settings that are adjusted to it.
    """

    network: Callable[..., UNet | PointUNet]
    down: Callable[..., UNetDown | PointDown]
    options: Callable[[_Settings, Size], Mapping[str, Any]] = lambda grid, size: {}
    warnings: Callable[[_Settings, Size], list[str]] = lambda grid, size: []


def _unet_options(grid: UNetSettings, size: Size) -> Mapping[str, Any]:
    own = {"attention_sizes": grid.attention_sizes, "dropout_size": grid.dropout_size, "widen_in": grid.widen_in}
    return {"size": max(size), **own}


def _dfu_options(grid: DFUSettings, size: Size) -> Mapping[str, Any]:
    return {
        # Further ones would stay as they are drawn, until a larger image than those of the training lets them act.
        "modes": _modes_held(grid, size),
        "kernel_size": grid.kernel_size,
        "factor_rank": grid.factor_rank,
        "attention_levels": grid.attention_levels,
    }


def _dfu_warnings(grid: DFUSettings, size: Size) -> list[str]:
    held = _modes_held(grid, size)
    if held == grid.modes:
        return []
    return [f"model.grid.modes: {grid.modes}: grids of {format_size(size)} hold {held}, which are used"]


def _modes_held(grid: DFUSettings, size: Size) -> int:
    """Return how many of `modes` a top grid holds along its longer side; none of the levels below holds fewer."""
    return min(grid.modes, (max(size) + 1) // 2)


NETWORKS: dict[type[GridSettings], GridNetwork[Any]] = {
    UNetSettings: GridNetwork(GridUNet, GridDown, _unet_options),
    DFUSettings: GridNetwork(DFU, DFUDown, _dfu_options, _dfu_warnings),
    SparseSettings: GridNetwork(PointUNet, PointDown),
}


def any_size_kinds() -> str:
    """Return the values of model.grid.kind whose networks take grids of any size, for error messages."""
    return " or ".join(settings.model_fields["kind"].default for settings in NETWORKS if settings.any_size)


def grid_network(
    grid: GridSettings,
    *,
    in_channels: int,
    out_channels: int,
    size: Size,
    condition_dim: int,
    latent_dim: int = 0,
    layout: bool = True,
    operator: Mapping[str, Any] | None = None,
) -> UNet | PointUNet:
    """Return the network with fresh weights.

    size: of the top grid, for a network that knows it. latent_dim: the condition ends with a latent of this length, in
    addition to condition_dim entries. layout: the condition also says what lies where. operator: arguments of
    `SparseBlock`, for a network on points.
    """
    return NETWORKS[type(grid)].network(
        in_channels=in_channels,
        out_channels=out_channels,
        condition_dim=condition_dim,
        latent_dim=latent_dim,
        layout=layout,
        **_options(grid, size, operator),
    )


def down_half(
    grid: GridSettings, *, in_channels: int, size: Size, operator: Mapping[str, Any] | None = None
) -> UNetDown | PointDown:
    """Return the down half of `grid_network`, without a condition: the trunk of an encoder."""
    return NETWORKS[type(grid)].down(in_channels=in_channels, condition_dim=0, **_options(grid, size, operator))


def grid_warnings(grid: GridSettings, size: Size) -> list[str]:
    """Return a line about each setting that is adjusted to a top grid of this size."""
    return NETWORKS[type(grid)].warnings(grid, size)


def _options(grid: GridSettings, size: Size, operator: Mapping[str, Any] | None) -> dict[str, Any]:
    shared = {"channels": grid.channels, "multipliers": grid.multipliers, "blocks": grid.blocks}
    own = operator if grid.on_points and operator is not None else NETWORKS[type(grid)].options(grid, size)
    return {**shared, "dropout": grid.dropout, **own}

"""Fine-tuning on the largest resolution, upsampled (DFU appendix C): its settings, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from infdiff.config.files import config_differences, load_config
from infdiff.config.settings import Config, EDMConfig
from infdiff.coordinates import format_size
from infdiff.errors import UserError
from infdiff.methods.grid_networks import any_size_kinds
from infdiff.methods.sizes import largest, resolutions, upsampled_size
from infdiff.models import DFU
from infdiff.training import checkpoint

# Besides `model`, what decides which weights there are and what the network's input and output mean.
_ARCHITECTURE = (
    "method",
    "edm.data_std",
    "edm.noise",
    "edm.mollifier_sigma",
    "data.size",
    "data.channels",
    "data.condition_channels",
)
_MAY_DIFFER = ("model.backend", "model.grid.dropout", "model.grid.dropout_size")


def check_finetune(config: EDMConfig) -> None:
    """Raise UserError naming the first setting of `finetune` that cannot work with a grid network alone."""
    tune, size = config.finetune, upsampled_size(config)
    if size is None:
        if tune.run:
            raise UserError("--finetune: set finetune.size to the size to tune for, as configs/dfu_finetune_160.yaml")
        return
    if not config.model.grid.any_size:
        raise UserError(f"finetune.size: {format_size(size)}: fine-tuning is for model.grid.kind: {any_size_kinds()}")
    top = largest(resolutions(config))
    if not (size[0] > top[0] and size[1] > top[1]):
        raise UserError(
            f"finetune.size: {format_size(size)}: want more than the largest resolution trained on, {format_size(top)}"
        )
    start_of(config)


def start_of(config: Config) -> tuple[Path, int] | None:
    """The checkpoints and the step whose averaged weights training starts from; None for fresh weights.

    Raises UserError when `finetune.run` is no run, or one of another architecture, naming the difference.
    """
    if not isinstance(config, EDMConfig) or not config.finetune.run:
        return None
    folder = Path(config.finetune.run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--finetune {folder}: not a run directory (no config.yaml)")
    earlier = load_config(folder / "config.yaml")
    known = config_differences(earlier, config, ignore=_MAY_DIFFER)
    differences = [d for d in known if d.partition(":")[0] in _ARCHITECTURE or d.startswith("model.")]
    if isinstance(earlier, EDMConfig) and bool(earlier.data.augment) != bool(config.data.augment):
        # The layer that reads labels is there or not.
        differences.append(f"data.augment: {earlier.data.augment:g} -> {config.data.augment:g}")
    if differences:
        raise UserError(f"--finetune {folder}: a run of another architecture ({'; '.join(differences)})")
    checkpoints = folder / "checkpoints"
    steps = checkpoint.checkpoint_steps(checkpoints)
    if not steps:
        raise UserError(f"--finetune {folder}: it holds no checkpoint yet")
    return checkpoints, steps[-1]


def require_start(config: Config) -> None:
    """Raise UserError where a configuration that fine-tunes names no run to start from."""
    if upsampled_size(config) is not None and start_of(config) is None:
        raise UserError("finetune.run: fine-tuning starts from a run: name it, as train.py --finetune RUN does")


def load_start(config: Config, modules: Mapping[str, nn.Module]) -> None:
    """Load the weights of `start_of`, where there are any, into fresh modules."""
    if (start := start_of(config)) is not None:
        for name, module in modules.items():
            module.load_state_dict(checkpoint.load_tensors(*start, f"ema_{name}"))


def frozen_parameters(
    config: Config, modules: Mapping[str, nn.Module]
) -> Callable[[Tensor], Sequence[nn.Parameter]] | None:
    """Return the parameters frozen for a batch; None where no batch freezes any.

    With `finetune.freeze: spatial`, all spatial convolutions but the bottom level's if it is upsampled; otherwise none.
    """
    size = upsampled_size(config)
    if size is None or not isinstance(config, EDMConfig) or config.finetune.freeze == "none":
        return None
    network = modules["denoiser"].network
    assert isinstance(network, DFU)

    @cache
    def spatial() -> list[nn.Parameter]:  # first of the first step: sharding makes other parameters
        return [parameter for _, parameter in network.spatial_parameters(except_bottom=True)]

    return lambda batch: spatial() if tuple(batch.shape[2:]) == size else ()

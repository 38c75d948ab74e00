"""Fine-tuning on the largest resolution, enlarged (DFU appendix C): its settings, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from infdiff.config import Config, config_differences, load_config
from infdiff.coordinates import format_size
from infdiff.errors import UserError
from infdiff.methods.sizes import largest, resolutions, upsampled_size
from infdiff.models import DFU
from infdiff.training import checkpoint

# Beside `model`, what decides which weights there are and what the network's input and output mean.
_ARCHITECTURE = ("edm.data_std", "edm.noise", "diffusion.sigma", "data.size")
_MAY_DIFFER = ("model.backend", "model.grid.dropout", "model.grid.dropout_size")


def check_finetune(config: Config) -> None:
    """Raise UserError naming the first setting of `finetune` that cannot work with a grid network alone."""
    tune, size = config.finetune, upsampled_size(config)
    if size is None:
        if tune.run:
            raise UserError("--finetune: set finetune.size to the size to tune for, as configs/dfu_finetune_160.yaml")
        return
    if config.model.grid.kind != "dfu":
        raise UserError(f"finetune.size: {format_size(size)}: fine-tuning is for model.grid.kind: dfu")
    top = largest(resolutions(config))
    if not (size[0] > top[0] and size[1] > top[1]):
        raise UserError(
            f"finetune.size: {format_size(size)}: want more than the largest resolution trained on, {format_size(top)}"
        )
    if not 0 < tune.weight <= 1:
        raise UserError(f"finetune.weight: {tune.weight:g}: want more than 0, at most 1")
    start_of(config)


def start_of(config: Config) -> tuple[Path, int] | None:
    """The checkpoints and the step whose averaged weights training starts from; None for fresh weights.

    Raises UserError when `finetune.run` is no run, or one of another architecture, naming the difference.
    """
    if not config.finetune.run:
        return None
    folder = Path(config.finetune.run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--finetune {folder}: not a run directory (no config.yaml)")
    known = config_differences(load_config(folder / "config.yaml"), config, ignore=_MAY_DIFFER)
    differences = [d for d in known if d.partition(":")[0] in _ARCHITECTURE or d.startswith("model.")]
    if differences:
        raise UserError(f"--finetune {folder}: a run of another architecture ({'; '.join(differences)})")
    checkpoints = folder / "checkpoints"
    steps = checkpoint.checkpoint_steps(checkpoints)
    if not steps:
        raise UserError(f"--finetune {folder}: it holds no checkpoint yet")
    return checkpoints, steps[-1]


def load_start(config: Config, modules: Mapping[str, nn.Module]) -> None:
    """Give fresh modules the weights of `start_of`, where there are any."""
    if (start := start_of(config)) is not None:
        for name, module in modules.items():
            module.load_state_dict(checkpoint.load_tensors(*start, f"ema_{name}"))


def frozen_parameters(config: Config, modules: Mapping[str, nn.Module]) -> Callable[[Tensor], Sequence[nn.Parameter]]:
    """What a batch leaves alone: enlarged ones the spatial convolutions but for the bottom level's, others nothing."""
    size = upsampled_size(config)
    if size is None:
        return lambda batch: ()
    network = modules["denoiser"].network
    assert isinstance(network, DFU)
    spatial = [parameter for _, parameter in network.spatial_parameters(except_bottom=True)]
    return lambda batch: spatial if tuple(batch.shape[2:]) == size else ()

"""A program for tests: what every process of a training does, for each of several kinds of training.

Called as `train_together.py FOLDER PARALLEL KIND=STEPS...`, by itself or by several processes as torchrun starts them.
The run of a kind is FOLDER/KIND.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from infdiff import processes
from infdiff.config.files import load_config
from infdiff.data.latents import Latents
from infdiff.methods.checks import check_config
from infdiff.nn import condition
from infdiff.runs.data import build_data
from infdiff.runs.folder import RunFolder
from infdiff.runs.latent_training import build_latent_trainer
from infdiff.runs.training import build_trainer
from infdiff.training.sharded import own_part
from infdiff.training.trainer import Trainer
from tests.conftest import TINY, TINY_GRID

CPU = torch.device("cpu")
EXACT = (
    "train.log_every=1",
    "train.checkpoint_every=1000",
    "model.grid.dropout=0",
    "train.eval_every=0",
    "train.bfloat16=false",
    "train.decay_from=1",  # else another number of steps has other learning rates
)
EVALUATED = ("train.eval_every=16", "train.eval_images=7")
MIXTURE = (
    *TINY_GRID,
    *EXACT,
    "data.resolutions={8: 1, 16: 1}",
    "data.flip=true",
    "data.augment=0.3",
    "train.accumulate=2",
)
LATENT = ("latent.train.log_every=1",)
KINDS = {
    "points": (*TINY, *EXACT, *EVALUATED, "train.subsample={1: 1, 4: 1}", "data.flip=true", "train.latent_noise=0.1"),
    "muon": (
        *TINY,
        *EXACT,
        "train.optimiser=muon",
        "train.accumulate=2",
        "train.times=lognormal",
        "train.points=halton",
        "model.sharp=true",
    ),
    "mixture": MIXTURE,
    "tuned": (*MIXTURE, "finetune.size=24", "finetune.weight=0.5"),
}


def main(folder: Path, steps_of: Mapping[str, int], parallel: str = "auto") -> None:
    """Train each kind from where it is."""
    if parallel == "fsdp":
        condition._ONE_BY_ONE = ()  # as on CUDA, where modulations of all blocks are otherwise made together
    with processes.together(CPU) as place:
        for kind, steps in steps_of.items():
            own = folder / kind
            if kind == "latent":
                config = load_config(
                    "demo", [*TINY, *LATENT, f"latent.train.steps={steps}", f"latent.train.parallel={parallel}"]
                )
                own.mkdir(parents=True, exist_ok=True)
                z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
                trainer = build_latent_trainer(config, Latents.of(z, z[:16]), RunFolder(own), CPU)
            else:
                start = [f"finetune.run={folder / 'mixture'}"] if kind == "tuned" else []
                given = [*KINDS[kind], f"train.steps={steps}", f"train.parallel={parallel}", *start]
                config = load_config("demo", given)
                check_config(config)
                with processes.first_before_others():
                    RunFolder.open_for_training(own, config)
                trainer = build_trainer(config, build_data(config, CPU), own, CPU)
            trainer.run()
            if parallel == "fsdp":
                (own / f"held-{place.rank}.json").write_text(json.dumps(held(trainer)))


def held(trainer: Trainer) -> list[int]:
    """Bytes of weights, moments and EMA weights in this process, while it trains."""
    weights = [own_part(parameter) for parameter in trainer.parameters]
    moments = [value for state in trainer.optimiser.adamw.state.values() for value in state.values() if value.ndim]
    ema = [part for parts in trainer.ema.parts.values() for part in parts.values()]
    groups = weights, [*moments, *trainer.optimiser.momentum.values()], ema
    return [sum(tensor.untyped_storage().nbytes() for tensor in group) for group in groups]


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = (call.split("=") for call in sys.argv[3:])
    main(Path(sys.argv[1]), {kind: int(steps) for kind, steps in asked}, sys.argv[2])

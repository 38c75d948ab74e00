"""The directory of a training run: what training leaves behind, and how it is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from infdiff.config.files import config_differences, load_config, save_config
from infdiff.config.settings import Config
from infdiff.errors import OptionError, UserError
from infdiff.files import clean_partials, is_partial, make_folder, whole_file
from infdiff.methods.finetune import require_start
from infdiff.runs.owner import LOCK
from infdiff.training import checkpoint

RUNS = Path("runs")

_ANOTHER = "choose another folder"

# Settings that may change between two calls of the same run. (Where the learning rate falls towards the end,
# another number of steps moves the fall.)
_MAY_CHANGE = (
    "name",
    "train.steps",
    "train.log",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_bad_steps",
    "train.compile",
    "train.graph",
    "train.parallel",
    "train.validation_images",
    "train.eval_every",
    "train.eval_images",
    "data.cache",
    "data.workers",
    "latent",
    "sample",
)


@dataclass(frozen=True)
class RunFolder:
    """A directory with a configuration and checkpoints. The latent model of a run has one of its own inside it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def newest(cls) -> RunFolder:
        """The run under runs/ that was trained last. Raises UserError when there is none."""
        runs = [path.parent for path in RUNS.glob("*/config.yaml")]
        if not runs:
            raise UserError(f"no run in {RUNS}/: train one with infdiff train, or name one (--run)")
        return cls(max(runs, key=lambda path: (path / "config.yaml").stat().st_mtime))

    @classmethod
    def open_for_training(cls, path: Path, config: Config) -> RunFolder:
        """Make the directory, or check that it holds a run of the same configuration.

        Raises UserError naming the settings that differ, and for a fine-tuning that starts from no run.
        """
        folder = cls(path)
        folder.check_for_training(config)
        folder.claim(config, may_change=_MAY_CHANGE, remedy=_ANOTHER)
        make_folder(folder.samples)
        return folder

    def check_for_training(self, config: Config) -> None:
        """Raise what `open_for_training` would raise. Writes nothing."""
        require_start(config)
        self._check(config, may_change=_MAY_CHANGE, remedy=_ANOTHER)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def field_file(self) -> Path:
        """The file in which a run of fields keeps what their values mean."""
        return self.path / "field.json"

    @property
    def labels_file(self) -> Path:
        """The file in which a run with labels keeps what they mean."""
        return self.path / "labels.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def latents(self, step: int) -> RunFolder:
        """The folder of the latents of one checkpoint, and of the latent model trained on them."""
        return RunFolder(self.path / "latents" / f"{step:08d}")

    def gaussian(self, step: int) -> Path:
        """The file of the Gaussian fitted to latents of one checkpoint."""
        return self.path / f"latents-{step:08d}.safetensors"

    def config(self) -> Config:
        """The run's configuration. Raises UserError when the directory holds none."""
        if not self.config_file.is_file():
            raise UserError(f"{self.path} is not a run directory (no config.yaml): train one with infdiff train")
        return load_config(self.config_file)

    def checkpoint(self, which: str = "last") -> int:
        """The step of a checkpoint: "last", "best" (see `checkpoint.best_step`) or a step that there is.

        Raises UserError when there is no such checkpoint.
        """
        steps = checkpoint.checkpoint_steps(self.checkpoints)
        if not steps:
            raise UserError(f"{self.path} holds no checkpoint yet: let infdiff train reach one")
        if which == "last":
            return steps[-1]
        if which == "best":
            best = checkpoint.best_step(self.checkpoints)
            return steps[-1] if best is None else best
        if not which.isdecimal() or int(which) not in steps:
            raise OptionError("checkpoint", which, f"choose last, best or one of {', '.join(map(str, steps))}")
        return int(which)

    def weights(self, step: int, network: str) -> dict[str, Tensor]:
        """The EMA weights of one network, on the CPU. Raises UserError when they are missing or damaged."""
        return checkpoint.load_tensors(self.checkpoints, step, f"ema_{network}")

    def fingerprint(self, step: int, network: str | None = None) -> str:
        """A hash of the EMA weights of one network, or of all of them. Raises UserError for an unreadable file."""
        folder = self.checkpoints / f"{step:08d}"
        if network is not None:
            return _sha256(folder / f"ema_{network}.safetensors").hex()[:16]
        digests = [_sha256(path) for path in sorted(folder.glob("ema_*.safetensors"))]
        return hashlib.sha256(b"".join(digests)).hexdigest()[:16]

    def claim(self, config: Config, *, may_change: Sequence[str], remedy: str = "delete it to start again") -> None:
        """Make the directory with its configuration, or check that it holds the same one but for `may_change`.

        Raises UserError naming the settings that differ.
        """
        self._check(config, may_change=may_change, remedy=remedy)
        clean_partials(make_folder(self.path))
        with whole_file(self.config_file) as partial:
            save_config(config, partial)

    def _check(self, config: Config, *, may_change: Sequence[str], remedy: str) -> None:
        if self.config_file.exists():
            differences = config_differences(load_config(self.config_file), config, ignore=may_change)
            if differences:
                raise UserError(f"{self.path} holds a run with other settings ({'; '.join(differences)}): {remedy}")
        elif self.path.exists() and (not self.path.is_dir() or not self._is_empty()):
            raise UserError(f"{self.path} is not empty and holds no run: {remedy}")

    def _is_empty(self) -> bool:
        """True where there is nothing but what a process left that was killed before it began."""
        return all(is_partial(entry) or entry.name == LOCK for entry in self.path.iterdir())


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error

"""Checkpoints: a folder for each step, complete or absent. Weights in safetensors, the rest in JSON; no pickle."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from infdiff.errors import UserError
from infdiff.files import flush, writing
from infdiff.tensors import DamagedFileError, read_tensors, write_tensors

# Parts of weights' names in earlier versions -> the names today.
RENAMED_WEIGHTS = {"conditioning.code.": "conditioning.latent."}

_STATE = "state.json"
_PARTIAL = ".partial-"
_ASIDE = "damaged-"
_CHECKSUM = "crc32"


class DamagedCheckpointError(UserError):
    """A file of a checkpoint is missing, cut off or changed. The message names it, and the remedy."""


def save_checkpoint(folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write FOLDER/STEP: one safetensors file for each group, and the state. It is renamed into place when on the disk.

    Raises UserError when it cannot be written, for instance on a full disk; earlier checkpoints stay as they were.
    """
    final = folder / f"{step:08d}"
    partial = folder / f"{_PARTIAL}{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_partial(folder)
        partial.mkdir()
        for name, tensors in groups.items():
            write_tensors(partial / f"{name}.safetensors", tensors)
        (partial / _STATE).write_text(state_text({"step": step} | state))
        for path in [*partial.iterdir(), partial]:
            flush(path)
        if final.exists():
            _delete(final)
        partial.rename(final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        steps = checkpoint_steps(folder)
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no earlier one"
        raise UserError(f"cannot save the checkpoint of step {step} in {folder}: {error}; {kept}") from error
    return final


def state_text(state: Mapping[str, Any]) -> str:
    """Return a checkpoint's state as JSON, with its checksum."""
    return json.dumps({**state, _CHECKSUM: _checksum(state)}, indent=1) + "\n"


def load_state(folder: Path, step: int) -> dict[str, Any]:
    """Return the JSON part. Raises DamagedCheckpointError naming the file."""
    path = folder / f"{step:08d}" / _STATE
    try:
        state = dict(json.loads(path.read_text()))
        if state.pop(_CHECKSUM, None) not in (None, _checksum(state)):  # earlier versions stored none
            raise ValueError("its checksum is not that of its content")
        return state
    except (OSError, ValueError, TypeError) as error:
        raise DamagedCheckpointError(
            f"checkpoint {path} is damaged ({error}): delete its folder to use an earlier one"
        ) from error


def load_tensors(folder: Path, step: int, group: str) -> dict[str, Tensor]:
    """Return one group's tensors, on the CPU. Raises DamagedCheckpointError naming the file."""
    path = folder / f"{step:08d}" / f"{group}.safetensors"
    try:
        tensors, _ = read_tensors(path)
    except (OSError, DamagedFileError) as error:
        raise DamagedCheckpointError(
            f"checkpoint {path} is damaged or missing ({error}): delete its folder to use an earlier one"
        ) from error
    for old, new in RENAMED_WEIGHTS.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return tensors


def set_aside(folder: Path, step: int) -> Path:
    """Rename a damaged checkpoint, so that it counts no more and can still be examined. Returns its new path."""
    aside = folder / f"{_ASIDE}{step:08d}"
    with writing(aside):
        shutil.rmtree(aside, ignore_errors=True)
        (folder / f"{step:08d}").rename(aside)
    return aside


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps with a complete checkpoint, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def best_step(folder: Path) -> int | None:
    """Return the step with the lowest KID of its samples, or the lowest validation loss if KID was never measured.

    The loss also counts noise that barely affects samples; KID measures the samples themselves. Losses are compared
    where they are of as many images as the last one. Raises DamagedCheckpointError for a state that cannot be read.
    """
    return _best({step: load_state(folder, step) for step in checkpoint_steps(folder)})


def _best(states: Mapping[int, Mapping[str, Any]]) -> int | None:
    distances = {step: (state.get("evaluation") or {}).get("kid") for step, state in states.items()}
    counts = {step: state.get("validation_images") for step, state in states.items()}
    last = next((count for _, count in sorted(counts.items(), reverse=True) if count), None)
    # Earlier versions stored no count.
    losses = {step: state.get("validation_loss") for step, state in states.items() if counts[step] in (last, None)}
    for values in (distances, losses):
        measured = {step: value for step, value in values.items() if value is not None}
        if measured:
            return min(measured, key=lambda step: measured[step])
    return None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` (at least one) and the best of those whose state can be read."""
    steps, states = checkpoint_steps(folder), {}
    for step in steps:
        with suppress(DamagedCheckpointError):  # an old one, which must not end a training that is well
            states[step] = load_state(folder, step)
    kept = {*steps[-max(1, keep) :], _best(states)}
    for step in steps:
        if step not in kept:
            _delete(folder / f"{step:08d}")


def clean_partial(folder: Path) -> None:
    """Remove checkpoints that a killed run has written, or deleted, only in part."""
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def _delete(checkpoint: Path) -> None:
    """Rename before deleting: a half-deleted folder must not count as a checkpoint if the process is killed here."""
    doomed = checkpoint.with_name(f"{_PARTIAL}deleted-{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def _checksum(state: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(state, sort_keys=True).encode()):08x}"

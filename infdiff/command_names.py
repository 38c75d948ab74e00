"""Names of the commands, and how a command is written the way it was called. Imports nothing, so that help is fast."""

from __future__ import annotations

import re

COMMANDS = {
    "make-fields": "simulate fields to try the package with, with missing pixels",
    "prepare-data": "turn a folder, a zip or an LMDB of images into one LMDB for training",
    "train": "train ∞-Diff, DFU or their baselines",
    "train-latent": "train the latent diffusion model of a run",
    "watch": "show a run in a browser while it trains",
    "sample": "sample images of any size from a run",
    "superres": "enlarge an image, with detail that the model adds",
    "inpaint": "fill a masked part of an image",
    "view": "look at samples at any depth in a browser, and enlarge and fill images there",
    "export": "write a model to share: weights, settings and a model card",
    "push": "send an exported model to the Hugging Face Hub",
    "evaluate": "compare the images of a run or a folder with real ones",
    "ablate": "train the rows of a paper's table for equal time, and compare them",
    "benchmark": "time operators, training steps and sampling steps on this machine",
    "gpu-check": "check and measure everything on a GPU, in ten minutes",
    "doctor": "check this installation: versions, devices, kernels and every operator",
}

_AS_MODULE = {"doctor": "python -m infdiff.doctor"}  # has no script
_CALL = re.compile(rf"(-m -- )?\binfdiff ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})\b(?!-)")


def module_of(name: str) -> str:
    """The module of a command: "train_latent" of "train-latent"."""
    return name.replace("-", "_")


def as_called(text: str, program: str) -> str:
    """Return text in which commands are written like the one that was called.

    program: "infdiff train", which leaves the text as it is, or "python scripts/train.py".
    """
    if "scripts/" not in program:
        return text

    def script(match: re.Match[str]) -> str:
        name = match[2]
        path = f"scripts/{module_of(name)}.py"  # after torchrun, as `torchrun -m -- infdiff train`, without "python"
        return f"-- {path}" if match[1] else _AS_MODULE.get(name, f"python {path}")

    return _CALL.sub(script, text)

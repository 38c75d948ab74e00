"""infdiff: diffusion models over functions, trained on subsets of pixels, sampled at any size."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from infdiff.runs.library import Model

__version__ = "0.1.0"


def load(folder: "str | Path", device: str = "auto", checkpoint: str = "last") -> "Model":
    """A trained model, ready to sample, encode, enlarge and fill images.

    folder: a run directory, an exported folder, or "hf://OWNER/NAME" for one on the Hugging Face Hub (extra `hub`).
    device: "auto", "cpu" or "cuda". checkpoint: "last", "best" or a step. Raises UserError when there is no such run.
    """
    from infdiff.runs.library import Model

    return Model.load(folder, device, checkpoint)

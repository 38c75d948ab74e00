"""The README.md of an exported model: what it is, what it was trained on, what was measured, and how to use it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from infdiff.coordinates import format_size
from infdiff.methods.sizes import training_size
from infdiff.runs.trained import TrainedModel
from infdiff.training.checkpoint import load_state

UNKNOWN = "unknown"
# The embedded demo faces.
_DEMO = ("Fluent Emoji faces, © Microsoft (MIT)", "mit")


def model_card(trained: TrainedModel, license: str | None = None) -> str:
    """Return the text, with YAML in front. license: of the model, as the Hub names it; by default that of the demo."""
    config = trained.config
    data, known = (_plain(Path(config.data.path).name), UNKNOWN) if config.data.path else _DEMO
    front = {
        "library_name": "infdiff",
        "license": license or known,
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["infdiff", "diffusion", config.method.replace("_", "-")],
    }
    method = "∞-Diff" if config.method == "infinity_diff" else f"EDM with a {config.model.grid.kind} network"
    rows = {
        "method": method,
        "data": data,
        "training size": f"{format_size(training_size(config))} pixels (samples may have any size)",
        "steps": f"{trained.step:,}",
        "parameters": ", ".join(f"{count:,} ({name})" for name, count in trained.parameter_counts.items()),
        "latents": trained.describe_latents(),
    } | _measured(load_state(trained.folder.checkpoints, trained.step))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {_plain(config.name)}

A diffusion model over functions, trained with infdiff: it samples images of any size.

| | |
|---|---|
{table}

```python
import infdiff

model = infdiff.load("THIS FOLDER")  # or infdiff.load("hf://OWNER/NAME")
images = model.sample(4, {training_size(config)[0]}, seed=0)
```

`config.yaml` has every setting; weights are safetensors. Nothing here is code.
"""


def _measured(state: dict[str, Any]) -> dict[str, str]:
    """Return what was measured at the checkpoint, by name; nothing where nothing was."""
    values = {"validation loss": state.get("validation_loss")} | (state.get("evaluation") or {})
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
    return {_plain(name): f"{value:.4g}" for name, value in numbers.items()}


def _plain(text: str) -> str:
    """Return a name without what Markdown or HTML would read as more than text."""
    kept = "".join(letter if letter.isalnum() or letter in " .-" else "_" for letter in text)
    return kept.strip() or "model"

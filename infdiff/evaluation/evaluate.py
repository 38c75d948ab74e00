"""A whole evaluation: what `scripts/evaluate.py` is asked, and what it finds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infdiff import __version__
from infdiff.config import InfinityDiffConfig
from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.errors import UserError
from infdiff.evaluation import table
from infdiff.evaluation import tasks as tasks
from infdiff.evaluation.generated import Maker, Share
from infdiff.evaluation.report import Subject, save_report
from infdiff.evaluation.results import Evaluation
from infdiff.files import save_json
from infdiff.methods.checks import sampling_options
from infdiff.methods.sizes import training_weights
from infdiff.metrics.features import FeatureNetwork
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel
from infdiff.training.log import read_log


@dataclass(frozen=True)
class Request:
    """What to evaluate, as the options of `scripts/evaluate.py` of the same names say."""

    task: str
    sizes: Sequence[Size]
    small: Size
    count: int
    metrics: Sequence[str]
    images: str | None
    data: Path | None
    held_out: Path | None
    split: str | None
    checkpoint: str
    steps: int | None
    truncation: float | None
    deblur: bool
    batch: int | None
    seed: int
    out: Path | None
    device: torch.device
    keep_looks: bool

    def folders(self, runs: Sequence[Path]) -> list[Path | None]:
        """The runs to evaluate: those given, else the newest; None alone where the task needs none.

        Raises UserError for options that do not go together.
        """
        pictures, data = self.images is not None, self.data is not None
        tasks.check_request(self.task, self.sizes, self.count, pictures=pictures, data=data)
        if pictures or self.task == "scale":
            if runs:
                raise UserError(f"--run {runs[0]}: does not go with --images, nor with --task scale")
            return [None]
        if self.out is not None and len(runs) > 1:
            raise UserError(f"--out {self.out}: of one run alone; images of several are kept beside each")
        return list(runs or [RunFolder.newest().path])


@dataclass(frozen=True)
class Evaluated:
    """What was found of one run, or of images: results as `Evaluation`'s, and about them in plain values."""

    name: str
    about: dict[str, Any]
    evaluation: Evaluation
    run: TrainedModel | None = None

    def subject(self) -> Subject:
        """As a report shows it."""
        facts = {key: value for key, value in self.about.items() if key not in ("real", "parameters")}
        facts |= {f"real images, {key}": value for key, value in self.about["real"].items()}
        results, looks, warnings = self.evaluation.results, self.evaluation.looks, self.evaluation.warnings
        if self.run is None:
            return Subject(self.name, results, looks, warnings, facts)
        facts |= {f"parameters of the {name}": f"{count:,}" for name, count in self.about["parameters"].items()}
        config = self.run.folder.config_file.read_text()
        log = read_log(self.run.folder.log)
        trained = [format_size(size) for size in training_weights(self.run.config)]
        return Subject(self.name, results, looks, warnings, facts, trained, config, log)


def evaluate(
    request: Request, folder: Path | None, network: FeatureNetwork, on_images: Callable[[int], object]
) -> Evaluated:
    """Of the run in a folder; without one, of the request's images or of known damage."""
    pictures = tasks.open_pictures(request.images) if request.images is not None else None
    run = None if folder is None else TrainedModel.load(folder, request.device, request.checkpoint)
    config = InfinityDiffConfig() if run is None else run.config
    real = tasks.open_real_images(config, request.task, request.data, request.held_out, request.split)
    evaluation = Evaluation(network, real, request.metrics, on_images, request.keep_looks)
    if run is None:
        return _of_pictures(request, pictures, evaluation)
    options = sampling_options(config, steps=request.steps, truncation=request.truncation)
    parent = request.out or run.folder.path / "evaluation"
    maker = Maker(run, parent, request.seed, options, request.deblur, request.batch, Share.here(), on_images)
    tasks.score_run(evaluation, maker, request.task, request.sizes, request.count, request.small)
    about = {"run": str(run.folder), "step": run.step, "latents": run.describe_latents()}
    about |= {"options": options | {"deblur": request.deblur}, "parameters": run.parameter_counts}
    return Evaluated(str(run.folder), about | {"real": real.about()}, evaluation, run)


def _of_pictures(request: Request, pictures: ImageFolder | None, evaluation: Evaluation) -> Evaluated:
    if pictures is None:
        tasks.score_damaged(evaluation, request.sizes)
    else:
        tasks.score_folder(evaluation, pictures, request.sizes)
    name = request.images or "known damage"
    return Evaluated(name, {"images": request.images, "real": evaluation.real.about()}, evaluation)


def finish(
    request: Request,
    found: Sequence[Evaluated],
    network: FeatureNetwork,
    command: Sequence[str],
    *,
    json: Path | None,
    report: Path | None,
) -> str:
    """Write the JSON file and the report that are asked for; the results as text."""
    several = len(found) > 1
    results = [({"run": one.name} if several else {}) | row for one in found for row in one.evaluation.results]
    warnings = list(dict.fromkeys(line for one in found for line in one.evaluation.warnings))
    about = {"command": list(command), "infdiff": __version__, "torch": torch.__version__}
    about |= {"task": request.task, "seed": request.seed, "metrics": list(request.metrics)}
    about |= {"network": {"name": network.name, "version": network.version}, "device": str(request.device)}
    if json is not None:
        runs = {"runs": [one.about for one in found]}
        save_json(json, about | runs | {"warnings": warnings, "results": results})
    if report is not None:
        facts = {key: value for key, value in about.items() if key not in ("command", "network")}
        facts |= {"features": f"{network.name} ({network.version})"}
        subjects = [one.subject() for one in found]
        save_report(report, subjects, shlex.join(command), facts)
    return table.as_text(results, warnings)

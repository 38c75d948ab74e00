"""Evaluate runs or images: from the options of `infdiff evaluate` to results, JSON and report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infdiff import __version__
from infdiff.config.settings import Config, InfinityDiffConfig
from infdiff.coordinates import Size, format_size
from infdiff.data.fields import FieldDescription
from infdiff.data.image_folder import ImageFolder
from infdiff.errors import OptionError
from infdiff.evaluation import table, tasks
from infdiff.evaluation.fields import (
    FieldComparison,
    holds_fields,
    open_fields,
    score_field_folder,
    score_field_run,
)
from infdiff.evaluation.generated import ImageMaker
from infdiff.evaluation.patches import PatchCutter
from infdiff.evaluation.real_conditions import CONDITIONS
from infdiff.evaluation.real_images import RealImages
from infdiff.evaluation.report import ReportSubject, save_report
from infdiff.evaluation.results import Evaluation
from infdiff.evaluation.statistics import METRICS_OF_STATISTICS, PublishedStatistics, holds_statistics
from infdiff.files import save_json
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import training_size, training_weights
from infdiff.metrics.features import FeatureNetwork
from infdiff.metrics.perceptual import load_lpips
from infdiff.processes import Place
from infdiff.runs.folder import RunFolder
from infdiff.runs.trained import TrainedModel
from infdiff.training.log import read_log


@dataclass(frozen=True)
class Request:
    """Options of an evaluation, named as those of `infdiff evaluate`."""

    task: str
    sizes: Sequence[Size]
    count: int
    metrics: Sequence[str]
    device: torch.device
    small: Size = (64, 64)
    images: str | None = None
    data: Path | None = None
    held_out: Path | None = None
    split: str | None = None
    checkpoint: str = "last"
    sampler: str | None = None
    steps: int | None = None
    truncation: float | None = None
    upscale: str | None = None
    deblur: str | None = None
    method: str | None = None
    guidance: str | None = None
    latents: str = tasks.LATENTS[0]
    conditions: str = CONDITIONS[0]
    weight: float | None = None
    patches: int | None = None
    lpips: bool = False
    batch: int | None = None
    seed: int = 0
    out: Path | None = None
    keep_examples: bool = False
    fields: bool = False  # of real values in units, and not RGB
    distances: tuple[float, ...] = ()

    def of_fields(self, folders: Sequence[Path | None]) -> bool:
        """Return True where fields are evaluated. Raises OptionError for fields next to RGB images."""
        if self.images is not None:
            return holds_fields(self.images)
        kinds = {folder is not None and RunFolder(folder).field_file.exists() for folder in folders}
        if len(kinds) > 1:
            raise OptionError("run", None, "runs of fields and of RGB images have no metric in common")
        return kinds.pop()

    def folders(self, runs: Sequence[Path]) -> list[Path | None]:
        """Return the runs to evaluate, by default the newest; [None] for a task that needs no run.

        Raises OptionError for options that do not go together.
        """
        images, data = self.images is not None, self.data is not None
        tasks.check_request(
            self.task,
            self.sizes,
            self.count,
            images=images,
            data=data,
            latents=self.latents,
            patches=self.patches,
            lpips=self.lpips,
            method=self.method,
            guidance=self.guidance,
            conditions=self.conditions,
            weight=self.weight,
        )
        self._check_statistics()
        if images or self.task == tasks.CALIBRATE:
            if runs:
                raise OptionError("run", runs[0], f"does not go with --images, nor with --task {tasks.CALIBRATE}")
            return [None]
        if self.out is not None and len(runs) > 1:
            raise OptionError("out", self.out, "takes one run; the images of several runs are kept in their folders")
        return list(runs or [RunFolder.newest().path])

    def _check_statistics(self) -> None:
        """Raise OptionError for an option that takes real images, where `data` names statistics alone."""
        if not holds_statistics(self.data):
            return
        wanted: dict[str, object] = {
            "task": self.task if self.task != "generate" else None,
            "latents": self.latents if self.latents == "real" else None,
            "conditions": self.conditions if self.conditions == "real" else None,
            "metrics": ",".join(name for name in self.metrics if name not in METRICS_OF_STATISTICS) or None,
            "patches": self.patches,
            "split": self.split,
            "held_out": self.held_out,
        }
        for name, value in wanted.items():
            if value is not None:
                raise OptionError(name, value, f"takes real images, and --data {self.data} holds statistics alone")


@dataclass(frozen=True)
class Evaluated:
    """Results of one run, or of images, and a record of what was evaluated."""

    name: str
    about: dict[str, Any]
    evaluation: Evaluation
    run: TrainedModel | None = None

    def subject(self) -> ReportSubject:
        """Return the results as a subject of the report."""
        facts = {key: value for key, value in self.about.items() if key not in ("real", "parameters")}
        facts |= {f"real images, {key}": value for key, value in self.about["real"].items()}
        results, examples, warnings = self.evaluation.results, self.evaluation.examples, self.evaluation.warnings
        if self.run is None:
            return ReportSubject(self.name, results, examples, warnings, facts)
        facts |= {f"parameters of the {name}": f"{count:,}" for name, count in self.about["parameters"].items()}
        config = self.run.folder.config_file.read_text()
        log = read_log(self.run.folder.log)
        trained = [format_size(size) for size in training_weights(self.run.config)]
        return ReportSubject(self.name, results, examples, warnings, facts, trained, config, log)


def evaluate(
    request: Request, folder: Path | None, networks: Sequence[FeatureNetwork], on_images: Callable[[int], object]
) -> Evaluated:
    """Evaluate the run in a folder; without a folder, the images of the request or corruptions of real images."""
    images = tasks.open_images(request.images) if request.images is not None and not request.fields else None
    run = None if folder is None else TrainedModel.load(folder, request.device, request.checkpoint)
    config = InfinityDiffConfig() if run is None else run.config
    field = None if run is None else run.field
    against = _open_reference(request, config, networks, None if run is None else run.stored_field)
    cutter = None if request.patches is None else PatchCutter(request.patches, request.seed)
    evaluation = Evaluation(networks, against, request.metrics, on_images, request.keep_examples, cutter)
    if request.lpips:
        evaluation.perceptual = load_lpips(request.device)
    if run is None:
        return (
            _evaluate_fields(request, evaluation) if request.fields else _evaluate_images(request, images, evaluation)
        )
    options = SamplingOptions.of(
        run.method,
        sampler=request.sampler,
        steps=request.steps,
        truncation=request.truncation,
        upscale=request.upscale,
        deblur=request.deblur,
    )
    weight = 1.0 if request.weight is None else request.weight
    parent = request.out or run.folder.path / "evaluation"
    maker = ImageMaker(run, parent, request.seed, options, request.batch, Place.here(), on_images)
    if field is not None:
        sizes = request.sizes or [training_size(config)]
        comparison = FieldComparison(evaluation, field, request.distances)
        score_field_run(
            comparison,
            maker,
            request.task,
            sizes,
            request.count,
            latents=request.latents,
            conditions=request.conditions,
            weight=weight,
        )
    else:
        tasks.score_run(
            evaluation,
            maker,
            request.task,
            request.sizes,
            request.count,
            small=request.small,
            latents=request.latents,
            method=request.method,
            guidance=request.guidance,
            conditions=request.conditions,
            weight=weight,
        )
    real_latents = "of training images" if request.latents == "real" else None
    about = {"run": str(run.folder), "step": run.step, "latents": real_latents or run.describe_latents()}
    if request.conditions == "real":
        about |= {"conditions": "of the real images", "weight": weight}
    about |= {"options": options.record(run.method), "parameters": run.parameter_counts}
    return Evaluated(str(run.folder), about | {"real": against.about()}, evaluation, run)


def _open_reference(
    request: Request, config: Config, networks: Sequence[FeatureNetwork], field: FieldDescription | None
) -> RealImages | PublishedStatistics:
    """Open the real images, or the statistics that stand for them."""
    if request.data is not None and holds_statistics(request.data):
        statistics = PublishedStatistics.open(request.data)
        statistics.require(networks)
        return statistics
    return tasks.open_real_images(config, request.task, request.data, request.held_out, request.split, field)


def _evaluate_fields(request: Request, evaluation: Evaluation) -> Evaluated:
    """Compare the fields of a folder. Raises OptionError where the real images are no fields."""
    assert request.images is not None
    store = evaluation.real.chosen.pieces[0][0]
    if store.field is None:
        raise OptionError("data", store.path, f"holds RGB images, and {request.images} fields: prepare both alike")
    comparison = FieldComparison(evaluation, store.field, request.distances)
    score_field_folder(comparison, open_fields(request.images, store.field), request.sizes)
    about = {"images": request.images, "real": evaluation.against.about()}
    return Evaluated(request.images, about, evaluation)


def _evaluate_images(request: Request, images: ImageFolder | None, evaluation: Evaluation) -> Evaluated:
    if images is None:
        tasks.score_corruptions(evaluation, request.sizes)
    else:
        tasks.score_folder(evaluation, images, request.sizes)
    name = request.images or "corruptions"
    return Evaluated(name, {"images": request.images, "real": evaluation.against.about()}, evaluation)


def finish(
    request: Request,
    found: Sequence[Evaluated],
    networks: Sequence[FeatureNetwork],
    command: Sequence[str],
    *,
    json: Path | None,
    report: Path | None,
    title: str = "",
) -> str:
    """Write the JSON file and the report, if requested, and return the results as text. title: of the report."""
    several = len(found) > 1
    results = [({"run": one.name} if several else {}) | row for one in found for row in one.evaluation.results]
    warnings = list(dict.fromkeys(line for one in found for line in one.evaluation.warnings))
    about: dict[str, Any] = {"command": list(command), "infdiff": __version__, "torch": torch.__version__}
    about |= {"task": request.task, "seed": request.seed, "metrics": list(request.metrics)}
    used = [{"name": network.name, "version": network.version} for network in networks]
    about |= {"network": used[0] if used else None, "device": str(request.device)}
    if len(used) > 1:
        about["networks"] = used
    if request.patches is not None:
        about["patches"] = request.patches
    if json is not None:
        runs = {"runs": [one.about for one in found]}
        save_json(json, about | runs | {"warnings": warnings, "results": results})
    if report is not None:
        facts = {key: value for key, value in about.items() if key not in ("command", "network", "networks")}
        if used:
            facts |= {"features": [f"{network.name} ({network.version})" for network in networks]}
        subjects = [one.subject() for one in found]
        save_report(report, subjects, shlex.join(command), facts, title)
    return table.as_text(results, warnings)

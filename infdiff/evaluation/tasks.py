"""Tasks of an evaluation: generated, reconstructed or super-resolved images of a run, a folder, or corruptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from infdiff.config.settings import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.fields import FieldDescription
from infdiff.data.image_folder import ImageFolder
from infdiff.data.sources import open_source
from infdiff.errors import OptionError, UserError
from infdiff.evaluation import real_images
from infdiff.evaluation.denoising import denoising_losses
from infdiff.evaluation.generated import GeneratedImages, ImageMaker, reduced
from infdiff.evaluation.real_conditions import CONDITIONS
from infdiff.evaluation.real_images import RealImages, StoredImages
from infdiff.evaluation.results import Evaluation, Images
from infdiff.images.sample_folder import SHEET
from infdiff.methods.sizes import training_size
from infdiff.metrics import corruptions
from infdiff.metrics.compare import FEWEST
from infdiff.runs.editing import enlarging_method
from infdiff.runs.trained import TrainedModel

SMALLEST = 11  # the window of SSIM
CALIBRATE = "calibrate"
DENOISE = "denoise"
TASKS = ("generate", "reconstruct", "superres", DENOISE, CALIBRATE)
LATENTS = ("model", "real")


def open_images(path: str) -> ImageFolder:
    """Open the images of a folder or zip, without a contact sheet. Raises UserError when they cannot be used."""
    source = open_source(path)
    names = tuple(name for name in source.names if name.rpartition("/")[2] != SHEET)
    images = ImageFolder.open(replace(source, names=names))
    if len(images) < FEWEST:
        raise UserError(f"{path} holds {len(images)} images: comparing takes at least {FEWEST}")
    return images


def check_request(
    task: str,
    sizes: Sequence[Size],
    count: int,
    *,
    images: bool,
    data: bool,
    latents: str = LATENTS[0],
    patches: int | None = None,
    method: str | None = None,
    guidance: str | None = None,
    lpips: bool = False,
    conditions: str = CONDITIONS[0],
    weight: float | None = None,
) -> None:
    """Raise OptionError for the first option that cannot work. images, data: whether these options are given."""
    if patches is not None and task != "generate":
        raise OptionError("patches", patches, "goes with --task generate only")
    if patches is not None and patches < SMALLEST:
        raise OptionError("patches", patches, f"want at least {SMALLEST} pixels")
    if lpips and task not in ("reconstruct", "superres"):
        raise OptionError("lpips", None, "compares pairs: it goes with --task reconstruct or superres")
    if method is not None and task != "superres":
        raise OptionError("method", method, "goes with --task superres only")
    if guidance is not None and method != "guided":
        raise OptionError("guidance", guidance, "goes with --task superres --method guided only")
    if latents != LATENTS[0] and (images or task != "generate"):
        raise OptionError("latents", latents, "goes with --task generate of a run only")
    if conditions != CONDITIONS[0] and (images or task != "generate" or latents != LATENTS[0]):
        raise OptionError("conditions", conditions, "goes with --task generate of a run only, without --latents")
    if weight is not None and conditions == CONDITIONS[0]:
        raise OptionError("weight", f"{weight:g}", "of classifier-free guidance: goes with --conditions real")
    for size in sizes:
        if min(size) < SMALLEST:
            raise OptionError("res", format_size(size), f"want at least {SMALLEST} pixels along each side")
    if count < FEWEST:
        raise OptionError("n", count, f"comparing takes at least {FEWEST} images")
    if images and task != "generate":
        raise OptionError("images", None, f"goes with --task generate only, {task} takes no images")
    if (images or task == CALIBRATE) and not data:
        raise OptionError("data", None, "name the LMDB of the real images, made with infdiff prepare-data")


def open_real_images(
    config: Config,
    task: str,
    data: Path | None,
    held_out: Path | None,
    choice: str | None,
    field: FieldDescription | None = None,
) -> RealImages:
    """Open the real images of a task, by default the training images of the run, or held-out ones as truth.

    field: of a run of fields, in whose normalisation networks see them.
    """
    default = "val" if task in ("reconstruct", "superres", DENOISE) else "train"
    return real_images.open_real_images(
        config, data=data, held_out=held_out, choice=choice, default=default, field=field
    )


def score_folder(evaluation: Evaluation, images: ImageFolder, sizes: Sequence[Size]) -> None:
    """Score images at their own size, or reduced to `sizes`; larger sizes are skipped with a warning."""
    sizes, held = sizes or [images.size], format_size(images.size)
    within = [size for size in sizes if size[0] <= images.size[0] and size[1] <= images.size[1]]
    if not within:
        raise OptionError("res", None, f"every size is beyond the images' {held} pixels")
    for size in sizes:
        if size not in within:
            evaluation.warn(f"size: {format_size(size)} is left out: the images have {held} pixels")
    evaluation.require_patches(within)
    for size in within:
        if size != images.size:
            evaluation.warn(f"size: the images have {held} pixels: reduced to {format_size(size)}")
        if isinstance(evaluation.against, RealImages):
            real = evaluation.against.chosen
            if real.sizes != {size} and real.fitting(size) == size:
                evaluation.warn(f"size: the real images are cropped and reduced to {format_size(size)} (antialiased)")
        evaluation.score_images(images, size, "images")


def score_corruptions(evaluation: Evaluation, sizes: Sequence[Size]) -> None:
    """Score corruptions of the real images, by default at the size that these are stored at."""
    for size in sizes or [min(evaluation.real.chosen.sizes)]:
        evaluation.score_corruptions(size)


def score_run(
    evaluation: Evaluation,
    maker: ImageMaker,
    task: str,
    sizes: Sequence[Size],
    count: int,
    *,
    small: Size,
    latents: str = LATENTS[0],
    method: str | None = None,
    guidance: str | None = None,
    conditions: str = CONDITIONS[0],
    weight: float = 1.0,
) -> None:
    """Score a run on one of TASKS, by default at its training size. small, method: input size and way of superres.

    latents, conditions: of generated images, one of LATENTS and of CONDITIONS; weight: of the latter's guidance.
    """
    sizes = sizes or [training_size(maker.run.config)]
    if task == DENOISE:
        score_denoised(evaluation, maker.run, sizes, count, maker.seed)
        return
    if task == "generate":
        score_generated(evaluation, maker, sizes, count, latents, conditions, weight)
        return
    maker.run.require_encoder()
    if task == "reconstruct":
        score_reconstructed(evaluation, maker, sizes, count)
    else:
        score_super_resolved(evaluation, maker, small, sizes, count, method, guidance)


def score_denoised(evaluation: Evaluation, run: TrainedModel, sizes: Sequence[Size], count: int, seed: int) -> None:
    """Add the loss at noise levels from low to high, on every rate of points that the run knows."""
    truth = evaluation.real.chosen.first(count)
    for size in sizes:
        if truth.fitting(size) != size:
            held = format_size(truth.fitting(size))
            raise OptionError("res", format_size(size), f"the real images hold {held} pixels")
        for rate in run.method.rates:
            losses = denoising_losses(run, truth, size, rate, seed, evaluation.on_images)
            evaluation.add_losses(losses, rate, size, len(truth))


def score_generated(
    evaluation: Evaluation,
    maker: ImageMaker,
    sizes: Sequence[Size],
    count: int,
    latents: str = LATENTS[0],
    conditions: str = CONDITIONS[0],
    weight: float = 1.0,
) -> None:
    """Score `count` new images at each size. latents: of the latent model, or those of training images.

    conditions: none, or those of the real images, with this weight of guidance.
    """
    if latents == "real":
        maker.run.require_encoder()
    evaluation.require_patches(sizes)
    for size in sizes:
        if latents == "real":
            made = maker.decoded(evaluation.real.train.spread(count), size)
        else:
            made = maker.generated(size, *conditioned(evaluation, count, conditions), weight)
        if made is not None and enough(evaluation, made, "generated"):
            evaluation.score_images(made.images, size, "generated", made.about)


def conditioned(evaluation: Evaluation, count: int, conditions: str) -> tuple[int, StoredImages | None]:
    """Return how many images are generated, and the real ones whose conditions they have: at most as many as these."""
    if conditions == CONDITIONS[0]:
        return count, None
    given = evaluation.real.chosen.spread(count)
    return len(given), given


def score_reconstructed(evaluation: Evaluation, maker: ImageMaker, sizes: Sequence[Size], count: int) -> None:
    """Score reconstructions of the first `count` real images from their latents."""
    truth = evaluation.real.chosen.first(count)
    _score_pairs(
        evaluation, truth, sizes, lambda size: maker.reconstructed(truth, size), lambda size, made: {"run": made.take}
    )


def score_super_resolved(
    evaluation: Evaluation,
    maker: ImageMaker,
    small: Size,
    sizes: Sequence[Size],
    count: int,
    method: str | None = None,
    guidance: str | None = None,
) -> None:
    """Score the first `count` real images, reduced to `small` and super-resolved, and bicubic upsampling.

    method: of super-resolution, by default the best for the run.
    """
    for size in sizes:
        if small[0] >= size[0] or small[1] >= size[1]:
            raise OptionError("from", format_size(small), f"not smaller than --res {format_size(size)}")
    truth = evaluation.real.chosen.first(count)

    def methods(size: Size, made: GeneratedImages) -> dict[str, Images]:
        return {
            method or enlarging_method(maker.run, size): made.take,
            "bicubic": lambda numbers: corruptions.resize_bicubic(reduced(truth.take(numbers, size), small), size),
        }

    _score_pairs(
        evaluation, truth, sizes, lambda size: maker.super_resolved(truth, small, size, method, guidance), methods
    )


def _score_pairs(
    evaluation: Evaluation,
    truth: StoredImages,
    sizes: Sequence[Size],
    make: Callable[[Size], GeneratedImages | None],
    methods: Callable[[Size, GeneratedImages], dict[str, Images]],
) -> None:
    fitting = [size for size in sizes if truth.fitting(size) == size]
    for size in sizes:
        if size not in fitting:
            held = format_size(truth.fitting(size))
            evaluation.warn(f"size: {format_size(size)} is left out: there is no truth, the real images hold {held}")
    if not fitting:
        raise OptionError("res", None, evaluation.warnings[-1])
    for size in fitting:
        made = make(size)
        if made is not None and enough(evaluation, made, "run"):
            evaluation.score_pairs(_taken(truth, size), methods(size, made), made.finite, size, made.about)


def _taken(stored: StoredImages, size: Size) -> Images:
    return lambda numbers: stored.take(numbers, size)


def enough(evaluation: Evaluation, made: GeneratedImages, what: str) -> bool:
    """Return True if enough images are finite to be compared, and warn about broken ones."""
    size, count = format_size(made.size), len(made.finite) + len(made.broken)
    if made.broken:
        evaluation.warn(
            f"broken: {len(made.broken)} of {count} images of {size} have pixels that are not finite: they are in no "
            f"number (see {made.folder})"
        )
    if len(made.finite) >= FEWEST:
        return True
    evaluation.warn(f"too few: {len(made.finite)} finite images of {size}: comparing takes at least {FEWEST}")
    row = {"what": what, "size": size, "at": size, "images": len(made.finite)}
    evaluation.results.append(row | made.about)
    return False

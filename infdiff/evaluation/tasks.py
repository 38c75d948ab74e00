"""What an evaluation can be of: a folder, new images of a run, its reconstructions, its enlargements, known damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from infdiff.config import Config
from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.data.sources import open_source
from infdiff.errors import UserError
from infdiff.evaluation import real_images
from infdiff.evaluation.generated import Made, Maker, reduced
from infdiff.evaluation.real_images import Part, RealImages
from infdiff.evaluation.results import Evaluation, Images
from infdiff.images.sample_folder import SHEET
from infdiff.methods.sizes import training_size
from infdiff.metrics import corruptions
from infdiff.metrics.compare import FEWEST

# SSIM's window: the largest thing that has to fit.
SMALLEST = 11
TASKS = ("generate", "reconstruct", "superres", "scale")


def open_pictures(path: str) -> ImageFolder:
    """The pictures of a folder or zip, without a contact sheet. Raises UserError when they cannot be used."""
    source = open_source(path)
    names = tuple(name for name in source.names if name.rpartition("/")[2] != SHEET)
    pictures = ImageFolder.open(replace(source, names=names))
    if len(pictures) < FEWEST:
        raise UserError(f"{path} holds {len(pictures)} images: comparing takes at least {FEWEST}")
    return pictures


def check_request(task: str, sizes: Sequence[Size], count: int, *, pictures: bool, data: bool) -> None:
    """Raise UserError naming the first option that cannot work. pictures, data: whether --images, --data are given."""
    for size in sizes:
        if min(size) < SMALLEST:
            raise UserError(f"--res {format_size(size)}: want at least {SMALLEST} pixels along each side")
    if count < FEWEST:
        raise UserError(f"--n {count}: comparing takes at least {FEWEST} images")
    if pictures and task != "generate":
        raise UserError(f"--images: goes with --task generate alone, {task} needs no images of its own")
    if (pictures or task == "scale") and not data:
        raise UserError("--data: name the LMDB of the real images, made with scripts/prepare_data.py")


def open_real_images(
    config: Config, task: str, data: Path | None, held_out: Path | None, choice: str | None
) -> RealImages:
    """Of a task: by default the training images of a run's own data, where truth is needed the unseen ones."""
    default = "val" if task in ("reconstruct", "superres") else "train"
    return real_images.open_real_images(config, data=data, held_out=held_out, choice=choice, default=default)


def score_folder(evaluation: Evaluation, pictures: ImageFolder, sizes: Sequence[Size]) -> None:
    """Of pictures at their own size, or reduced to `sizes`; larger ones are left out, with a warning."""
    for size in sizes or [pictures.size]:
        if size[0] > pictures.size[0] or size[1] > pictures.size[1]:
            held = format_size(pictures.size)
            evaluation.warn(f"size: {format_size(size)} is left out: the images have {held} pixels")
            continue
        if size != pictures.size:
            evaluation.warn(
                f"size: the images have {format_size(pictures.size)} pixels: reduced to {format_size(size)}"
            )
        real = evaluation.real.chosen
        if real.sizes != {size} and real.fitting(size) == size:
            evaluation.warn(f"size: the real images are cropped and reduced to {format_size(size)} (antialiased)")
        evaluation.score_pictures(pictures, size, "images")
    if not evaluation.results:
        raise UserError(f"--res: every size is beyond the images' {format_size(pictures.size)} pixels")


def score_damaged(evaluation: Evaluation, sizes: Sequence[Size]) -> None:
    """Of the real images themselves, damaged in known ways; by default at the size that they are stored at."""
    part = evaluation.real.chosen
    for size in sizes or [min(part.sizes)]:
        evaluation.score_damaged(size)


def score_run(evaluation: Evaluation, maker: Maker, task: str, sizes: Sequence[Size], count: int, small: Size) -> None:
    """A task of TASKS on a run; by default at its training size. small: for superres."""
    sizes = sizes or [training_size(maker.run.config)]
    if task == "generate":
        score_generated(evaluation, maker, sizes, count)
        return
    maker.run.require_encoder()
    if task == "reconstruct":
        score_reconstructed(evaluation, maker, sizes, count)
    else:
        score_enlarged(evaluation, maker, small, sizes, count)


def score_generated(evaluation: Evaluation, maker: Maker, sizes: Sequence[Size], count: int) -> None:
    """Of `count` new images at each size."""
    for size in sizes:
        made = maker.generated(size, count)
        if made is not None and _enough(evaluation, made, "generated"):
            evaluation.score_pictures(made.pictures, size, "generated", **made.about)


def score_reconstructed(evaluation: Evaluation, maker: Maker, sizes: Sequence[Size], count: int) -> None:
    """Of the first `count` real images through their latents and back."""
    truth = evaluation.real.chosen.first(count)
    _score_pairs(
        evaluation, truth, sizes, lambda size: maker.reconstructed(truth, size), lambda size, made: {"run": made.take}
    )


def score_enlarged(evaluation: Evaluation, maker: Maker, small: Size, sizes: Sequence[Size], count: int) -> None:
    """Of the first `count` real images reduced to `small` and enlarged, beside bicubic."""
    for size in sizes:
        if small[0] >= size[0] or small[1] >= size[1]:
            raise UserError(f"--from {format_size(small)}: not smaller than --res {format_size(size)}")
    truth = evaluation.real.chosen.first(count)

    def methods(size: Size, made: Made) -> dict[str, Images]:
        return {
            "guided": made.take,
            "bicubic": lambda numbers: corruptions.enlarge(reduced(truth.take(numbers, size), small), size),
        }

    _score_pairs(evaluation, truth, sizes, lambda size: maker.enlarged(truth, small, size), methods)


def _score_pairs(
    evaluation: Evaluation,
    truth: Part,
    sizes: Sequence[Size],
    make: Callable[[Size], Made | None],
    methods: Callable[[Size, Made], dict[str, Images]],
) -> None:
    fitting = [size for size in sizes if truth.fitting(size) == size]
    for size in sizes:
        if size not in fitting:
            held = format_size(truth.fitting(size))
            evaluation.warn(f"size: {format_size(size)} is left out: there is no truth, the real images hold {held}")
    if not fitting:
        raise UserError(f"--res: {evaluation.warnings[-1]}")
    for size in fitting:
        made = make(size)
        if made is not None and _enough(evaluation, made, "run"):
            evaluation.score_pairs(
                lambda numbers, size=size: truth.take(numbers, size), methods(size, made), made.whole, size, made.about
            )


def _enough(evaluation: Evaluation, made: Made, what: str) -> bool:
    """Whether enough images are whole to be compared; broken ones are named."""
    size, count = format_size(made.size), len(made.whole) + len(made.broken)
    if made.broken:
        evaluation.warn(
            f"broken: {len(made.broken)} of {count} images of {size} have pixels that are not finite: they are in no "
            f"number (see {made.folder})"
        )
    if len(made.whole) >= FEWEST:
        return True
    evaluation.warn(f"too few: {len(made.whole)} whole images of {size}: comparing takes at least {FEWEST}")
    row = {"what": what, "size": size, "at": size, "images": len(made.whole)}
    evaluation.results.append(row | made.about)
    return False

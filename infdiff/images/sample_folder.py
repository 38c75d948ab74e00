"""A folder of generated images: one PNG each, a contact sheet, and a JSON file that says what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff import processes
from infdiff.files import clean_partials, copy_file, make_folder, save_json
from infdiff.images.write import contact_sheet, save_gif, save_png
from infdiff.processes import failing_together

SHEET = "grid.png"

# Writes one image, in files named as the path but for its suffix, and returns its picture (3, H, W) uint8.
WriteImage = Callable[[Tensor, Path], Tensor]
_RECORD = "samples.json"


def sample_to_folder(
    sample: Callable[[Sequence[int]], Tensor],
    folder: Path,
    *,
    count: int,
    batch: int,
    record: dict[str, Any],
    write: WriteImage | None = None,
    shared: bool = False,
) -> Path:
    """Write images 0..count-1, `batch` at a time, and return the contact sheet's path.

    sample(indices) returns images, (B, 3, H, W) uint8. write: writes one image of another kind. shared: the processes
    that are joined share the batches, and the first one writes the sheet. The JSON file is written last. Raises
    UserError when the folder cannot be written.
    """
    place = processes.joined() if shared else processes.ALONE
    batches = [indices.tolist() for indices in torch.arange(count).split(batch)]
    images = {}
    with failing_together() if shared else nullcontext(), _used(folder):
        for indices in place.share(batches):
            for index, image in zip(indices, sample(indices), strict=True):
                images[index] = (write or _written)(image, _image(folder, index))
    sheet = folder / SHEET
    if not place.first:
        return sheet
    if count == 1:
        copy_file(_image(folder, 0), sheet)
    else:
        pictures = [images[i] if i in images else _read(_image(folder, i)) for i in range(count)]
        save_png(contact_sheet(torch.stack(pictures), columns=_columns(count)), sheet)
    save_json(folder / _RECORD, record)
    return sheet


def frames_to_folder(frames: Tensor, folder: Path, record: dict[str, Any]) -> Path:
    """Write frames (N, 3, H, W) uint8 as PNG files, a contact sheet, a JSON file and a GIF; return the GIF's path.

    Raises UserError when the folder cannot be written.
    """
    make_folder(folder)
    for number, frame in enumerate(frames):
        save_png(frame, _image(folder, number))
    save_png(contact_sheet(frames, columns=min(8, len(frames))), folder / SHEET)
    save_json(folder / _RECORD, record)
    animation = folder / "frames.gif"
    save_gif(frames, animation)
    return animation


@contextmanager
def _used(folder: Path) -> Iterator[None]:
    """Make a folder before the work, to know that it can be written; a failure takes it away if it is empty."""
    clean_partials(make_folder(folder))
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds something
            folder.rmdir()
        raise


def _image(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.png"


def _read(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _written(image: Tensor, path: Path) -> Tensor:
    save_png(image, path)
    return image


def _columns(count: int) -> int:
    """Number of columns of a sheet that is at least as wide as it is high."""
    return next(n for n in range(1, count + 1) if n * n >= count)

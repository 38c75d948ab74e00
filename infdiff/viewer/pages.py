"""Files of the pages, and the page that opens a pyramid of tiles without a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infdiff.files import copy_file, make_folder, save_json, save_text
from infdiff.images.pyramid import NAME, Pyramid, write_pyramid
from infdiff.processes import ALONE, failing_together, joined

STATIC = Path(__file__).parent / "static"
VIEWER = "openseadragon.min.js"
LICENSE = "openseadragon-LICENSE.txt"


def write_page(pyramid: Pyramid, title: str, least: int = 0) -> Path:
    """Write index.html and what it needs next to a pyramid, and return its path; browsers open it from the folder.

    title: without characters that mean something in HTML. least: the smallest level that is there.
    """
    height, width = pyramid.size
    # Pages from a folder may show images but not read files: the description is inside.
    source = {
        "width": width,
        "height": height,
        "tileSize": pyramid.tile,
        "tileOverlap": 0,
        "minLevel": least,
        "maxLevel": pyramid.levels,
    }
    page = (STATIC / "pyramid.html").read_text(encoding="utf-8")
    for word, text in (("TITLE", title), ("SOURCE", json.dumps(source)), ("FILES", f"{NAME}_files")):
        page = page.replace(f"{{{{{word}}}}}", text)
    for name in (VIEWER, LICENSE):
        copy_file(STATIC / name, pyramid.folder / name)
    save_text(pyramid.folder / "index.html", page)
    return pyramid.folder / "index.html"


def pyramids_to_folder(
    sample: Callable[[Sequence[int]], Tensor],
    folder: Path,
    *,
    count: int,
    batch: int,
    record: dict[str, Any],
    shared: bool = False,
) -> list[Path]:
    """Write images 0..count-1, `batch` at a time, each as a pyramid in a folder of its own; return their pages.

    sample(indices) returns (B, 3, H, W) uint8. shared: the processes that are joined share the batches, and each
    returns its own pages. The JSON file is written last. Raises UserError when the folder cannot be written.
    """
    place = joined() if shared else ALONE
    batches = [indices.tolist() for indices in torch.arange(count).split(batch)]
    make_folder(folder)
    pages = []
    with failing_together() if shared else nullcontext():
        for indices in place.share(batches):
            for index, image in zip(indices, sample(indices), strict=True):
                pyramid = Pyramid(folder / f"{index:05d}", (image.shape[1], image.shape[2]))
                write_pyramid(image, pyramid)
                pages.append(write_page(pyramid, f"image {index}"))
    if place.first:
        save_json(folder / "samples.json", record)
    return pages

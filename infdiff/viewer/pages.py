"""Files of the pages, and the page that opens a pyramid of tiles without a server."""

from __future__ import annotations

import json
from pathlib import Path

from infdiff.files import copy_file, save_text
from infdiff.images.pyramid import NAME, Pyramid

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

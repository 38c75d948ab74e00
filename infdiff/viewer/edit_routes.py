"""Routes of the page for enlarging and filling: pictures, masks, jobs and their results."""

from __future__ import annotations

import io
import secrets
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from infdiff.errors import UserError
from infdiff.images.read import read_image, read_mask
from infdiff.pipelines.super_resolve import small_size
from infdiff.runs.trained import TrainedModel
from infdiff.server import RefusedError, Request, Response, Route, as_json
from infdiff.viewer.edits import MOST_PIXELS, MOST_VARIANTS, Job, bicubic
from infdiff.viewer.worker import Worker
from infdiff.viewer.zoom_routes import MOST_SEED

_MOST_BYTES = 32 * 2**20
# Pictures and jobs that are kept; earlier ones are forgotten.
_KEPT = 8

Kept = TypeVar("Kept")


class EditRoutes:
    """Pictures that came in, and jobs on them, done one at a time."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained
        self._worker, self._lock = Worker(), threading.Lock()
        self._pictures: OrderedDict[str, Tensor] = OrderedDict()
        self._masks: OrderedDict[str, Tensor] = OrderedDict()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def routes(self) -> list[Route]:
        """The routes of this part of the server."""
        return [
            Route("POST", "/api/pictures", self.take_picture, _MOST_BYTES),
            Route("POST", "/api/pictures/{picture}/mask", self.take_mask, _MOST_BYTES),
            Route("GET", "/api/pictures/{picture}/bicubic.png", self.enlarged),
            Route("POST", "/api/pictures/{picture}/jobs", self.begin),
            Route("GET", "/api/jobs/{job}", self.state),
            Route("POST", "/api/jobs/{job}/cancel", self.cancel),
            Route("GET", "/api/jobs/{job}/{number}.png", self.result),
        ]

    def close(self) -> None:
        """End what is under way within a step."""
        self._worker.close()

    def take_picture(self, request: Request) -> Response:
        """A picture in any format and mode; the answer names it."""
        name = Path(request.query.get("name", "picture")[:200]).name
        _check_pixels(name, request.body)
        picture = read_image("picture", Path(name), request.body)
        height, width = small_size(picture)
        return as_json({"picture": self._keep(self._pictures, picture), "height": height, "width": width})

    def take_mask(self, request: Request) -> Response:
        """The mask of a picture, of its size; white is filled."""
        size = small_size(self._find(self._pictures, request, "picture"))
        name = Path(request.query.get("name", "mask")[:200]).name
        _check_pixels(name, request.body)
        return as_json({"mask": self._keep(self._masks, read_mask(Path(name), size, request.body))})

    def begin(self, request: Request) -> Response:
        """Start a job; the answer names it."""
        picture = self._find(self._pictures, request, "picture")
        hidden = self._find(self._masks, request, "mask") if request.query.get("mask") else None
        count = request.number("count", 1, MOST_VARIANTS, 1)
        seed = request.number("seed", 0, MOST_SEED, 0)
        job = Job.of(self.trained, picture, hidden, request.query.get("size", ""), count, seed)
        name = self._keep(self._jobs, job)
        job.start(self._worker)
        return as_json({"job": name} | job.state())

    def state(self, request: Request) -> Response:
        """The progress of a job."""
        return as_json(self._find(self._jobs, request, "job").state())

    def cancel(self, request: Request) -> Response:
        """End a job within a step."""
        job = self._find(self._jobs, request, "job")
        job.cancelled = True
        return as_json(job.state())

    def result(self, request: Request) -> Response:
        """A variant that a job has made."""
        job = self._find(self._jobs, request, "job")
        number = request.number("number", 0, MOST_VARIANTS - 1)
        if number >= len(job.made):
            raise RefusedError(404, f"variant {number}: not made yet")
        return _png(job.made[number])

    def enlarged(self, request: Request) -> Response:
        """A picture at a size, by bicubic interpolation."""
        picture = self._find(self._pictures, request, "picture")
        size = request.number("height", 1, MOST_PIXELS), request.number("width", 1, MOST_PIXELS)
        if size[0] * size[1] > MOST_PIXELS:
            raise RefusedError(400, "too large")
        return _png(bicubic(picture, size))

    def _keep(self, kept: OrderedDict[str, Kept], thing: Kept) -> str:
        name = secrets.token_hex(8)
        with self._lock:
            kept[name] = thing
            while len(kept) > _KEPT:
                _, forgotten = kept.popitem(last=False)
                if isinstance(forgotten, Job):
                    forgotten.cancelled = True
        return name

    def _find(self, kept: OrderedDict[str, Kept], request: Request, kind: str) -> Kept:
        name = request.parts.get(kind, request.query.get(kind, ""))
        with self._lock:
            if name not in kept:
                raise RefusedError(404, f"this {kind} is not kept any more: start again with the picture")
            return kept[name]


def _check_pixels(name: str, content: bytes) -> None:
    """Refuse a picture by its header, before its pixels take memory. One that is no picture is left to who reads it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = 2 * MOST_PIXELS
    except (OSError, ValueError, SyntaxError):
        return
    if pixels > MOST_PIXELS:
        raise UserError(f"{name}: more than {MOST_PIXELS / 1e6:.0f} megapixels; make it smaller first")


def _png(image: Tensor) -> Response:
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "PNG")
    return Response(content.getvalue(), "image/png", headers={"Cache-Control": "no-store"})

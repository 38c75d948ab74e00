"""Routes of the page of a zoom: the run, tiles, and their progress."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infdiff.server import RefusedError, Request, Response, Route, as_json
from infdiff.viewer.worker import AbandonedError, Worker
from infdiff.viewer.zoomed import Drawing, Painter, ZoomedImage

# Seeds up to this one have a folder of tiles.
MOST_SEED = 2**31 - 1


class ZoomRoutes:
    """The tiles of the images of one trained model, one folder for each seed, drawn one at a time."""

    def __init__(self, painter: Painter, folder: Path, seeds: Sequence[int]) -> None:
        self.painter, self.folder, self.seeds = painter, folder, list(seeds)
        self._worker, self._lock = Worker(), threading.Lock()
        self._images: dict[int, ZoomedImage] = {}
        self._now: Drawing | None = None

    def routes(self) -> list[Route]:
        """The routes of this part of the server."""
        return [
            Route("GET", "/api/run", self.run),
            Route("GET", "/api/progress", self.progress),
            Route("GET", "/tiles/{seed}/{level}/{place}", self.tile),
        ]

    def close(self) -> None:
        """End what is under way within a step."""
        self._worker.close()

    def run(self, request: Request) -> Response:
        """The run and the layout of its pyramids."""
        painter, trained, layout = self.painter, self.painter.trained, self.image(0).pyramid
        return as_json(
            {
                "run": str(trained.folder),
                "step": trained.step,
                "seeds": self.seeds,
                "mostSeed": MOST_SEED,
                "size": painter.size,
                "base": painter.base,
                "tile": layout.tile,
                "levels": layout.levels,
                "firstLevel": self.image(0).first_level,
                "folder": str(self.folder),
            }
        )

    def progress(self, request: Request) -> Response:
        """The tile under way, how many requests wait, and how many tiles have been drawn."""
        now = self._now
        drawn = sum(image.drawn for image in list(self._images.values()))
        content: dict[str, Any] = {"drawing": None if now is None else dataclasses.asdict(now)}
        return as_json(content | {"waiting": self._worker.waiting, "drawn": drawn})

    def tile(self, request: Request) -> Response:
        """A tile, from the disk or drawn; given up within a step once the connection is closed."""
        image = self.image(request.number("seed", 0, MOST_SEED))
        level = request.number("level", 0, image.pyramid.levels)
        place = re.fullmatch(r"(\d{1,9})_(\d{1,9})\.png", request.parts["place"], re.ASCII)
        rows, columns = image.pyramid.tiles_of(level)
        if place is None or int(place[2]) >= rows or int(place[1]) >= columns:
            raise RefusedError(404, f"tile {request.parts['place']}: level {level} has {columns} x {rows} of them")
        row, column = int(place[2]), int(place[1])
        path = image.pyramid.path(level, row, column)
        if not path.exists():
            try:
                path = self._worker.do(
                    lambda check: self._draw(image, level, row, column, check), lambda: not request.gone(), level
                )
            except AbandonedError:
                raise RefusedError(410, "no longer looked at") from None
        return Response(path.read_bytes(), "image/png", headers={"Cache-Control": "no-store"})

    def image(self, seed: int) -> ZoomedImage:
        """The image of a seed."""
        with self._lock:
            if seed not in self._images:
                self._images[seed] = ZoomedImage(self.painter, seed, self.folder / f"seed-{seed}")
            return self._images[seed]

    def _draw(self, image: ZoomedImage, level: int, row: int, column: int, check: Any) -> Path:
        def report(drawing: Drawing) -> None:
            self._now = drawing
            check()

        try:
            return image.tile(level, row, column, report)
        finally:
            self._now = None

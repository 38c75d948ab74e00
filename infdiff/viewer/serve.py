"""The server of the pages of one trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infdiff import __version__
from infdiff.coordinates import LARGEST_SIDE, Size
from infdiff.errors import OptionError, UserError
from infdiff.files import make_folder, save_json
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import training_size
from infdiff.runs.trained import TrainedModel
from infdiff.seeding import derive_seed
from infdiff.server import Route, Server, file_of
from infdiff.viewer.edit_routes import EditRoutes
from infdiff.viewer.pages import STATIC
from infdiff.viewer.zoom_routes import ZoomRoutes
from infdiff.viewer.zoomed import Painter


def zoom_options(trained: TrainedModel, **given: Any) -> SamplingOptions:
    """Options of sampling at the training size, where a zoom begins. given: as `SamplingOptions.of`.

    Raises UserError for a run without encoder, of another method, or of fields.
    """
    if trained.field is not None:
        raise UserError(f"{trained.folder} is a run of fields, and a zoom shows RGB images: use sample and inpaint")
    base = trained.infinity_diff.process.mollifier.base
    trained.require_encoder()
    return SamplingOptions.of(trained.method, base, trained.device, **given)


def painter_for(trained: TrainedModel, options: SamplingOptions, asked: Size, option: str = "res") -> Painter:
    """A painter of images at least as large as asked for.

    Raises OptionError, with the name of the option, when they would be too large, and UserError for a run without
    encoder or of another method.
    """
    base = training_size(trained.config)
    ratio = max(asked[0] / base[0], asked[1] / base[1])
    halvings = max(0, (int(-(-ratio // 1)) - 1).bit_length())
    painter = Painter(trained, options, halvings)
    if max(painter.size) > LARGEST_SIDE:
        raise OptionError(option, max(asked), f"want at most {LARGEST_SIDE}")
    painter.window_model(base)
    # At the start, not at the first tile; and the checkpoint's own, should a training go on.
    painter.latent(0)
    return painter


def tiles_folder(painter: Painter) -> Path:
    """The folder of tiles inside the run: another one for whatever changes their pixels."""
    trained = painter.trained
    record = painter.options.record(trained.method) | {"step": trained.step, "size": list(painter.size)}
    record |= trained.record_latents() | {"infdiff": __version__}
    return trained.folder.path / "zoom" / f"{trained.step:08d}-{derive_seed(repr(sorted(record.items()))):016x}"


def make_server(painter: Painter, folder: Path, seeds: Sequence[int], port: int) -> Server:
    """A server of the pages. Raises OptionError for a port that cannot be had, UserError for a folder."""
    zoom, edits = ZoomRoutes(painter, make_folder(folder), seeds), EditRoutes(painter.trained)
    pages = [
        Route("GET", "/", lambda request: file_of(STATIC, "view.html")),
        Route("GET", "/edit", lambda request: file_of(STATIC, "edit.html")),
        Route("GET", "/static/{name*}", lambda request: file_of(STATIC, request.parts["name"])),
    ]

    def close() -> None:
        zoom.close()
        edits.close()

    server = Server([*pages, *zoom.routes(), *edits.routes()], port, close)
    options = painter.options.record(painter.trained.method)
    save_json(folder / "zoom.json", options | {"step": painter.trained.step, "size": list(painter.size)})
    return server

"""The server of a run's page: the page, its state, and the run's own pictures and reports. Nothing else is served."""

from __future__ import annotations

from pathlib import Path

from infdiff.runs.folder import RunFolder
from infdiff.server import RefusedError, Request, Response, Route, Server, as_json, file_of
from infdiff.watch.state import reports, state_of

_HERE = Path(__file__).resolve().parent


def make_server(run: RunFolder, port: int) -> Server:
    """Return the server of a run's page. Raises UserError for a folder without a run, or a port that is taken."""
    run.config()

    def report(request: Request) -> Response:
        name = request.parts["name"]
        if name not in reports(run):
            raise RefusedError(404, f"{name}: not here")
        return file_of(run.path, name)

    def picture(request: Request) -> Response:
        name = request.parts["name"]
        if not name.endswith(".png"):
            raise RefusedError(404, f"{name}: not here")
        return file_of(run.path, f"samples/{name}")

    routes = [
        Route("GET", "/", lambda request: file_of(_HERE, "page.html")),
        Route("GET", "/watch.js", lambda request: file_of(_HERE, "watch.js")),
        Route("GET", "/state", lambda request: as_json(state_of(run))),
        Route("GET", "/samples/{name}", picture),
        Route("GET", "/reports/{name*}", report),
    ]
    return Server(routes, port)

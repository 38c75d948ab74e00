"""A small web server for pages on this machine: routes, files of a folder, and refusal of everything from elsewhere.

It listens on 127.0.0.1. A page of another site could make a browser on this machine call it: requests whose Host or
Origin header names another place are refused, as are those that a browser says another site has made.
"""

from __future__ import annotations

import errno
import json
import re
import select
import socket
import socketserver
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from infdiff.errors import OptionError, UserError

HOST = "127.0.0.1"

# Content types of the files that are served; others are not.
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".dzi": "application/xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
# Nothing of a page may come from, or go to, another place, and no other page may show it in a frame.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Seconds without a byte, after which a connection is given up.
_TIMEOUT = 60


class RefusedError(Exception):
    """A request that is not answered as asked. The message is one line, for the page to show."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request: the parts of the path that its route names, the query, and the body of a POST."""

    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    connection: socket.socket = field(repr=False)

    def gone(self) -> bool:
        """True when the other side has closed the connection: nobody waits for the answer."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number of the path or the query. Raises RefusedError when it is none, or out of range."""
        text = self.parts.get(name, self.query.get(name))
        if text is None and default is not None:
            return default
        if text is None or not re.fullmatch(r"-?\d{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise RefusedError(400, f"{name} {text or ''}: want a whole number from {least} to {most}")
        return int(text)


@dataclass(frozen=True)
class Response:
    """An answer: its bytes, their content type, and the status."""

    content: bytes
    kind: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(content: Any, status: int = 200) -> Response:
    """An answer in JSON, which is not to be cached."""
    return Response(json.dumps(content).encode(), KINDS[".json"], status, {"Cache-Control": "no-store"})


def file_of(folder: Path, name: str, cache: str = "no-cache") -> Response:
    """A file somewhere below a folder, of one of `KINDS`. Raises RefusedError for any other path, and links out of it.

    cache: the header that says how long browsers may keep it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part or part.startswith(".") for part in parts):
        raise RefusedError(404, f"{name}: not here")
    path, root = folder.joinpath(*parts).resolve(), folder.resolve()
    kind = KINDS.get(path.suffix)
    if kind is None or not path.is_relative_to(root) or not path.is_file():
        raise RefusedError(404, f"{name}: not here")
    return Response(path.read_bytes(), kind, headers={"Cache-Control": cache})


Handler = Callable[[Request], Response]


@dataclass(frozen=True)
class Route:
    """A method and a path, and the function that answers them.

    path: as in "/tiles/{seed}/{name}", each {part} of which is one segment; "{name*}" at its end is all that follow.
    most_bytes: of the body.
    """

    method: str
    path: str
    handler: Handler
    most_bytes: int = 0

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern that a path has to match from end to end."""
        text = re.sub(r"\\{(\w+)\\\*\\}", r"(?P<\1>.+)", re.escape(self.path))
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", text))


class Server:
    """Routes, served on 127.0.0.1 with a thread for each connection, until `close`."""

    def __init__(self, routes: Sequence[Route], port: int = 0, at_end: Callable[[], object] | None = None) -> None:
        """Listen on a port, 0 for a free one. Raises OptionError when it cannot be had.

        at_end: called when `serve` ends; what runs in threads of its own has to be over when it returns.
        """
        self._at_end = at_end
        if not 0 <= port <= 65535:
            raise OptionError("port", port, "want 1 to 65535, or 0 for a free one")
        try:
            self._http = _Http(routes, port)
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            reason = "in use by another program" if used else error.strerror
            raise OptionError("port", port, f"{reason}; choose another one, or 0 for any that is free") from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """The address of its first page, for a browser on this machine."""
        return f"http://{HOST}:{self.port}/"

    def serve(self) -> None:
        """Answer requests until `close` is called in another thread, or the process is interrupted."""
        try:
            self._http.serve_forever(poll_interval=0.1)
        finally:
            self._http.server_close()
            if self._at_end is not None:
                self._at_end()

    def serve_until_interrupted(self, say: Callable[[str], object]) -> None:
        """Answer requests until Ctrl-C: then stop listening, say so, and raise KeyboardInterrupt."""
        try:
            self.serve()
        except KeyboardInterrupt:
            say("ended")
            raise

    def close(self) -> None:
        """Stop `serve`, where it runs in another thread, and listening."""
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, routes: Sequence[Route], port: int) -> None:
        super().__init__((HOST, port), _Exchange)
        self.routes = routes
        own = self.server_address[1]
        self.hosts = {f"{name}:{own}" for name in (HOST, "localhost")}

    def server_bind(self) -> None:
        # That of HTTPServer looks the name up, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    """One connection, with its requests one after another."""

    server: _Http
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "infdiff", ""
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET", with_content=False)

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are many, and errors are shown on the page."""

    def _answer(self, method: str, with_content: bool = True) -> None:
        try:
            self._refuse_foreign()
            response = self._routed(method)
        except RefusedError as error:
            response = as_json({"error": str(error)}, error.status)
        except UserError as error:
            response = as_json({"error": str(error)}, 400)
        except OSError as error:
            response = as_json({"error": f"cannot read or write a file: {error.strerror or error}"}, 500)
        except Exception:
            # An error of this package: whoever runs the server sees all of it.
            traceback.print_exc()
            response = as_json({"error": "an error inside the server: its terminal says more"}, 500)
        if response.status >= 400:
            self.close_connection = True  # a body may be left unread
        try:
            self._send(response, with_content)
        except OSError:
            self.close_connection = True

    def _refuse_foreign(self) -> None:
        hosts, headers = self.server.hosts, self.headers
        if headers.get_all("Host", []) == [] or any(host not in hosts for host in headers.get_all("Host", [])):
            raise RefusedError(403, f"this server answers at {HOST} alone")
        if any(origin not in {f"http://{host}" for host in hosts} for origin in headers.get_all("Origin", [])):
            raise RefusedError(403, "this server answers its own pages alone")
        # A link of another site may open a page; it may not load, or do, anything.
        opened = headers.get("Sec-Fetch-Mode") == "navigate" and self.command == "GET"
        if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and not opened:
            raise RefusedError(403, "this server answers its own pages alone")

    def _routed(self, method: str) -> Response:
        url = urlsplit(self.path)
        path = unquote(url.path)
        found = [(route, match) for route in self.server.routes if (match := route.pattern.fullmatch(path))]
        if not found:
            raise RefusedError(404, f"{path[:100]}: not here")
        for route, match in found:
            if route.method == method:
                query = dict(parse_qsl(url.query, keep_blank_values=True, max_num_fields=50))
                body = self._body(route.most_bytes) if method == "POST" else b""
                return route.handler(Request(match.groupdict(), query, body, self.connection))
        raise RefusedError(405, f"{path[:100]}: not with {method}")

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            raise RefusedError(411, "a request without its length")
        if int(length) > most:
            raise RefusedError(413, f"{int(length) / 2**20:.0f} MiB: at most {most / 2**20:g} MiB are taken")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise RefusedError(400, "a request that was cut off")
        return body

    def _send(self, response: Response, with_content: bool) -> None:
        self.send_response(response.status)
        for name, value in (_HEADERS | dict(response.headers)).items():
            self.send_header(name, value)
        self.send_header("Content-Type", response.kind)
        self.send_header("Content-Length", str(len(response.content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if with_content:
            self.wfile.write(response.content)

"""The web server of pages: routes, files, and what it refuses."""

import http.client
import json
import socket
import threading
from urllib.parse import quote

import pytest

from infdiff.errors import OptionError, UserError
from infdiff.server import RefusedError, Response, Route, Server, as_json, file_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inside" / "deep").mkdir(parents=True)
    (tmp_path / "inside" / "page.html").write_text("<p>page")
    (tmp_path / "inside" / "deep" / "a b.json").write_text("{}")
    (tmp_path / "inside" / ".hidden.json").write_text("{}")
    (tmp_path / "inside" / "weights.bin").write_text("secret")
    (tmp_path / "outside.json").write_text("secret")
    (tmp_path / "inside" / "link.json").symlink_to(tmp_path / "outside.json")
    return tmp_path / "inside"


@pytest.fixture
def server(folder):
    def fail(request):
        raise UserError("bad input")

    def count(request):
        return as_json({"bytes": len(request.body), "n": request.number("n", 1, 5, 2)})

    server = Server(
        [
            Route("GET", "/files/{name*}", lambda request: file_of(folder, request.parts["name"])),
            Route("GET", "/item/{n}", count),
            Route("GET", "/fail", fail),
            Route("POST", "/count", count, most_bytes=1000),
            Route("GET", "/", lambda request: Response(b"hello", "text/plain")),
        ]
    )
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.close()
    thread.join()


def ask(server, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, response


def test_routes(server):
    status, content, response = ask(server, "/")
    assert (status, content) == (200, b"hello")
    assert "default-src 'self'" in response.getheader("Content-Security-Policy")
    assert ask(server, "/item/4")[1] == b'{"bytes": 0, "n": 4}'
    assert ask(server, "/count", "POST", b"abc")[1] == b'{"bytes": 3, "n": 2}'
    assert ask(server, "/", "HEAD")[:2] == (200, b"")
    assert ask(server, "/nowhere")[0] == 404
    assert ask(server, "/", "POST", b"")[0] == 405


@pytest.mark.parametrize("number", ["0", "6", "x", "1.5", "٣", "9" * 30])
def test_a_number_out_of_range_is_refused(server, number):
    status, content, _ = ask(server, f"/item/{quote(number)}")
    assert status == 400
    assert json.loads(content)["error"].endswith("want a whole number from 1 to 5")


def test_bad_input_is_one_line(server):
    assert ask(server, "/fail")[:2] == (400, b'{"error": "bad input"}')


def test_bodies_are_limited(server):
    assert ask(server, "/count", "POST", b"x" * 1000)[0] == 200
    assert ask(server, "/count", "POST", b"x" * 1001)[0] == 413
    assert ask(server, "/count", "POST", iter([b"x"]), Transfer_Encoding="chunked")[0] == 411


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_requests_from_elsewhere_are_refused(server, headers):
    assert ask(server, "/", **headers)[0] == 403
    assert ask(server, "/count", "POST", b"abc", **headers)[0] == 403


def test_its_own_pages_and_links_to_them_are_answered(server):
    for name in ("127.0.0.1", "localhost"):
        place = f"{name}:{server.port}"
        assert ask(server, "/", Host=place, Origin=f"http://{place}", Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    form = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(server, "/count", "POST", b"abc", **form)[0] == 403


def test_files_of_the_folder_alone(server):
    assert ask(server, "/files/page.html")[1] == b"<p>page"
    assert ask(server, "/files/deep/a%20b.json")[1] == b"{}"
    for path in (
        "../outside.json",
        "%2e%2e/outside.json",
        "deep/../../outside.json",
        "deep%2f..%2f..%2foutside.json",
        "..%5coutside.json",
        "/etc/hostname",
        "%2fetc%2fhostname",
        "//etc/passwd",
        "link.json",
        ".hidden.json",
        "weights.bin",
        "deep",
        "page.html%00.json",
        "missing.json",
    ):
        status, content, _ = ask(server, f"/files/{path}")
        assert status == 404, path
        assert b"secret" not in content


def test_it_listens_on_this_machine_alone(server):
    assert server.url.startswith("http://127.0.0.1:")
    with (
        pytest.raises(OSError, match=r"refused|unreachable|assign"),
        socket.create_connection(("127.0.0.2", server.port), 2),
    ):
        pass


def test_a_port_in_use_is_one_line(server):
    with pytest.raises(OptionError, match="in use by another program"):
        Server([], server.port)
    with pytest.raises(OptionError, match="want 1 to 65535"):
        Server([], 70000)


def test_an_interrupt_stops_listening_and_is_passed_on(interrupted):
    said, ended = [], threading.Event()
    server = Server([], at_end=ended.set)
    with pytest.raises(KeyboardInterrupt):
        server.serve_until_interrupted(said.append)
    assert said == ["ended"]
    assert ended.is_set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 2)


def test_a_closed_connection_is_noticed():
    seen = threading.Event()

    def wait(request):
        for _ in range(100):
            if request.gone():
                seen.set()
                raise RefusedError(499, "nobody waits")
            threading.Event().wait(0.05)
        return as_json({})

    server = Server([Route("GET", "/", wait)])
    thread = threading.Thread(target=server.serve)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    assert seen.wait(5)
    server.close()
    thread.join()

"""A headless Chromium, driven through the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import websocket

# Seconds after which something that was waited for is missing.
PATIENCE = 120
# No name but this machine's own address leads anywhere, and nothing is fetched that the pages do not ask for.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_ELSEWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

# Of keys that are no letters: their code, the number that Windows has for them, and the text that they type.
_KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "+": ("NumpadAdd", 107, "+"),
    "-": ("NumpadSubtract", 109, "-"),
    "[": ("BracketLeft", 219, "["),
    "]": ("BracketRight", 221, "]"),
}


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Chromium with its profile in a folder, until the end of the block; skips the test where there is none."""
    program = shutil.which("chromium") or pytest.skip("no chromium: apt-get install chromium")
    process = subprocess.Popen(
        [program, *_OPTIONS, _ELSEWHERE, f"--user-data-dir={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        places = folder / "DevToolsActivePort"
        lines = until(lambda: places.read_text().splitlines() if places.exists() else [], lambda found: len(found) == 2)
        socket = websocket.create_connection(
            f"ws://127.0.0.1:{lines[0]}{lines[1]}", timeout=PATIENCE, suppress_origin=True
        )
        try:
            yield Browser(socket)
        finally:
            socket.close()
    finally:
        process.terminate()
        process.wait()


def until(look: Any, there: Any = bool) -> Any:
    """What look() returns as soon as there(it) is true. Raises AssertionError with it after `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not there(found := look()):
        assert time.monotonic() < end, f"waited for too long; it is still {found!r}"
        time.sleep(0.02)
    return found


class Browser:
    """The connection to a browser. Its messages are read when a command is sent."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError with the browser's message when it fails."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments}
        self._socket.send(json.dumps(message | ({} if session is None else {"sessionId": session})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)

    @contextmanager
    def page(self, url: str, *, width: int = 1000, height: int = 800, dark: bool = False) -> Iterator[Page]:
        """A page in a window of its own, which shares no storage with others, until the end of the block."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, context, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.send(f"{domain}.enable")
        page.show(width, height, dark)
        page.open(url)
        yield page
        self.send("Target.closeTarget", targetId=target)
        self.send("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """A page: what is done to it by mouse and keyboard, what it shows, and what it has asked for."""

    def __init__(self, browser: Browser, context: str, session: str) -> None:
        self.browser, self.context, self._session = browser, context, session

    def send(self, method: str, **arguments: Any) -> dict[str, Any]:
        """The result of a command for this page."""
        return self.browser.send(method, self._session, **arguments)

    def open(self, url: str) -> None:
        """Go to an address, and wait until its scripts have run."""
        self.send("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def show(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window and the colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript, promises awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        return until(lambda: self.value(expression))

    def text(self, selector: str) -> str:
        """The text that an element shows, empty when it is hidden."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A place in the window, in parts of an element's width and height; the element is brought into sight."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'nearest', behavior: 'instant'}})")
        box = self.value(f"(b => [b.left, b.top, b.width, b.height])({element}.getBoundingClientRect())")
        assert box[2] > 0, f"{selector} cannot be seen"
        assert box[3] > 0, f"{selector} cannot be seen"
        return box[0] + x * box[2], box[1] + y * box[3]

    def click(self, selector: str) -> None:
        """Click on the centre of an element."""
        self.drag([self.place(selector)])

    def drag(self, places: list[tuple[float, float]]) -> None:
        """Press the mouse at the first place, move it to each of the others, and let go."""
        for number, (x, y) in enumerate(places):
            if number == 0:
                self._mouse("mouseMoved", x, y, 0)
                self._mouse("mousePressed", x, y, 1)
            else:
                self._mouse("mouseMoved", x, y, 1)
        self._mouse("mouseReleased", *places[-1], 0)

    def _mouse(self, kind: str, x: float, y: float, buttons: int) -> None:
        button = "none" if kind == "mouseMoved" and not buttons else "left"
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key[0].upper()), key))
            names = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **names)
            self.send("Input.dispatchKeyEvent", type="keyUp", **names)

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(60):
            if self.value(f"document.activeElement?.matches({json.dumps(selector)}) ?? false"):
                return
            self.press("Tab")
        raise AssertionError(f"{selector} is not reached by Tab")

    def give_files(self, selector: str, *paths: Path) -> None:
        """Choose files for an input."""
        found = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self.send("DOM.setFileInputFiles", files=[str(path) for path in paths], objectId=found["objectId"])

    def picture(self, path: Path) -> None:
        """Write what the window shows to a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """Errors of the page's scripts, and what the browser has logged as warnings or errors."""
        self.value("0")  # what happened before has been read with its answer
        return [text for event in self._events() if (text := _complaint(event["method"], event["params"]))]

    def requests(self) -> list[str]:
        """The addresses that the page has asked for."""
        self.value("0")
        asked = [e["params"]["request"]["url"] for e in self._events() if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if urlsplit(url).scheme not in ("blob", "data")]

    def _events(self) -> list[dict[str, Any]]:
        return [event for event in self.browser.events if event.get("sessionId") == self._session]


def _complaint(method: str, content: Mapping[str, Any]) -> str | None:
    match method:
        case "Runtime.exceptionThrown":
            return str(content["exceptionDetails"])
        case "Runtime.consoleAPICalled" if content["type"] in ("error", "warning", "assert"):
            return str(content["args"])
        case "Log.entryAdded" if content["entry"]["level"] in ("error", "warning"):
            return f"{content['entry']['text']} ({content['entry'].get('url', '')})"
    return None

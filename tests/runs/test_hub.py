"""Shared models: the card, what is sent and fetched, what is refused. A stand-in on 127.0.0.1 is the Hub."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
import torch
import yaml

import infdiff
from infdiff.errors import UserError
from infdiff.runs.folder import RunFolder
from infdiff.runs.hub import fetch, push
from infdiff.runs.model_card import model_card
from tests.conftest import assert_one_line_error

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """What the Hub answers to uploads and downloads of small files. server.files: {path: bytes} of the one model."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(body), "X-Repo-Commit": SHA} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.server.asked.append(("POST", path))
        if path == "/api/repos/create":
            self.reply({"url": f"{self.server.url}/a/b", "name": "a/b"})
        elif path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif path.startswith("/api/models/a/b/preupload/"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.reply({"files": files})
        elif path.startswith("/api/models/a/b/commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply({"commitUrl": f"{self.server.url}/a/b/commit/{SHA}", "commitOid": SHA, "success": True})
        else:
            self.reply({"error": "no"}, 404)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        files = self.server.files
        self.server.asked.append((self.command, path))
        if re.fullmatch(r"/api/models/a/b(/revision/\w+)?", path) and files:
            siblings = [{"rfilename": name, "size": self.server.sizes.get(name, len(c))} for name, c in files.items()]
            self.reply({"id": "a/b", "modelId": "a/b", "sha": SHA, "siblings": siblings, "private": False, "tags": []})
        elif path.startswith(f"/api/models/a/b/tree/{SHA}"):
            self.reply([{"type": "file", "path": n, "size": len(c), "oid": oid(c)} for n, c in files.items()])
        elif path.startswith(f"/a/b/resolve/{SHA}/") and path.removeprefix(f"/a/b/resolve/{SHA}/") in files:
            content = files[path.removeprefix(f"/a/b/resolve/{SHA}/")]
            self.reply(content, ETag=f'"{oid(content)}"')
        else:
            self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def do_HEAD(self):
        self.do_GET()


def oid(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.sizes, server.asked = {}, {}, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_no_one")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def exported(points_run, tmp_path):
    return infdiff.load(points_run, device="cpu").export(tmp_path / "exported", license="cc-by-4.0")


def test_a_model_that_is_pushed_and_loaded_draws_the_same_pixels(hub, exported, command):
    done = command("push", exported, "a/b")
    assert (done.returncode, done.stdout) == (0, f"{hub.url}/a/b\n"), done.stderr
    sent = {str(path.relative_to(exported)): path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert hub.files == sent
    hub.files["notes.txt"] = b"not fetched"
    here, there = (infdiff.load(place, device="cpu") for place in (exported, "hf://a/b"))
    assert torch.equal(here.sample(1, output="tensor"), there.sample(1, output="tensor"))
    assert not any("notes.txt" in path for _, path in hub.asked)


@pytest.mark.parametrize("name", ["weights.bin", "checkpoints/00000002/ema_denoiser.PT", "model.py", "x/y.pkl"])
def test_what_may_run_code_is_refused_before_anything_is_fetched(hub, name):
    hub.files.update({"config.yaml": b"name: x", name: b"0"})
    with pytest.raises(UserError, match="may run code: only safetensors and YAML are taken"):
        infdiff.load("hf://a/b")
    assert not any("resolve" in path for _, path in hub.asked)


def test_what_is_no_model_or_too_large_is_refused(hub):
    with pytest.raises(UserError, match=r"cannot fetch hf://a/b: 404: not there"):
        fetch("hf://a/b")
    hub.files["README.md"] = b"x"
    with pytest.raises(UserError, match=r"no model of infdiff \(no config.yaml\)"):
        fetch("a/b")
    hub.files["config.yaml"] = b"name: x"
    hub.sizes["config.yaml"] = (1 << 20) + 1
    with pytest.raises(UserError, match=r"config.yaml has 1,048,577 bytes"):
        fetch("a/b")
    hub.sizes = {"config.yaml": 5, "latents-00000002.safetensors": 65 << 30}
    hub.files["latents-00000002.safetensors"] = b""
    with pytest.raises(UserError, match=r"latents-00000002.safetensors has 69,793,218,560 bytes"):
        fetch("a/b")


@pytest.mark.parametrize("name", ["a", "a/b/c", "../b", "a/..%2f", "hf://", "a b/c", ""])
def test_bad_names_are_one_line(name, exported):
    with pytest.raises(UserError, match="want OWNER/NAME"):
        push(exported, name)
    with pytest.raises(UserError, match="want OWNER/NAME"):
        infdiff.load(f"hf://{name}")


def test_only_an_exported_folder_is_pushed(points_run, exported, command):
    assert_one_line_error(command("push", points_run, "a/b"), "no exported model: write one with infdiff export")
    (exported / "secret.txt").write_text("x")
    assert_one_line_error(command("push", exported, "a/b"), "secret.txt, which is no part of an exported model")


def test_without_the_package_one_line_says_so(exported, monkeypatch, command):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert_one_line_error(command("push", exported, "a/b"), "pip install 'infdiff[hub]'")


def test_the_card_says_what_the_model_is(exported, points_run, command, tmp_path):
    text = (exported / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "infdiff"
    state = json.loads((points_run / "checkpoints" / "00000002" / "state.json").read_text())
    for row in ("| data | Fluent Emoji faces", "| training size | 16 pixels", "| steps | 2 |"):
        assert row in text
    assert f"| validation loss | {state['validation_loss']:.4g} |" in text
    done = command("export", points_run, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "again" / "README.md").read_text().split("---\n")[1])["license"] == "mit"
    assert_one_line_error(command("export", points_run, tmp_path / "again"), "is not empty")


def test_names_in_the_card_are_text_alone(points_run):
    model = infdiff.load(points_run, device="cpu").trained
    data = model.config.data.changed(path="/home/me/<script>|`x`\n.lmdb")
    text = model_card(replace(model, config=model.config.changed(data=data, name="a <b> [c](d)")))
    assert "| data | _script___x__.lmdb |" in text
    assert "# a _b_ _c__d_\n" in text
    assert "/home/me" not in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"


def test_what_the_data_of_a_run_mean_is_sent_and_fetched_too(tmp_path, monkeypatch):
    run, sent = RunFolder(tmp_path / "model"), []
    run.path.mkdir()
    for path in (run.config_file, run.field_file, run.labels_file, run.path / "README.md"):
        path.write_text("{}")

    class Api:
        endpoint = "http://hub"

        def create_repo(self, name, **options):
            pass

        def upload_folder(self, *, folder_path, **options):
            sent.append(folder_path)

        def model_info(self, name, **options):
            found = [SimpleNamespace(rfilename=path.name, size=2) for path in run.path.iterdir()]
            return SimpleNamespace(siblings=found, sha=SHA)

        def snapshot_download(self, name, *, revision, allow_patterns):
            assert {"field.json", "labels.json"} < set(allow_patterns)
            return str(run.path)

    monkeypatch.setattr("infdiff.runs.hub._hub", lambda: SimpleNamespace(HfApi=Api))
    assert push(run.path, "a/b") == "http://hub/a/b"
    assert sent == [str(run.path)]
    assert fetch("hf://a/b") == run.path

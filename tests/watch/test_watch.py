"""The page of a run: what it shows, and that it serves a run's pictures and reports and nothing else."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from PIL import Image

import infdiff.watch
from infdiff.config.files import load_config, save_config
from infdiff.runs.folder import RunFolder
from infdiff.watch.serve import make_server
from infdiff.watch.state import state_of
from tests.conftest import assert_one_line_error

EVIL = "<img src=x onerror=document.title='run'>"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / EVIL.replace("/", "_")
    (folder / "samples").mkdir(parents=True)
    save_config(load_config("demo", ["train.steps=100", "train.batch_size=8"]), folder / "config.yaml")
    rows = [{"step": n, "loss": 10.0 / n, "learning_rate": 0.1, "images_per_second": 4.0} for n in (10, 20, 30, 40)]
    rows += [{"step": 40, "validation_loss": 0.5}, {"step": 40, "evaluation": {"kid": 0.25}}]
    rows += [{"step": 40, "losses": {EVIL: 1.0}, "loss": None}]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("samples-00000020", "reconstructions-00000040", "samples-00000040"):
        Image.new("RGB", (4, 4)).save(folder / "samples" / f"{name}.png")
    (folder / "report.html").write_text("a report")
    (folder.parent / "outside.html").write_text("secret")
    (folder / "samples" / "out.png").symlink_to(folder.parent / "outside.html")
    return RunFolder(folder)


@pytest.fixture
def served(run):
    server = make_server(run, 0)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.close()


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_the_state_is_that_of_the_log(run):
    state = state_of(run)
    assert (state["step"], state["steps"]) == (40, 100)
    assert state["seconds_left"] == 60 * 8 / 4.0
    assert state["curves"]["loss"]["training"] == [(10, 1.0), (20, 0.5), (30, 10 / 30), (40, 0.25)]
    assert state["curves"]["loss"]["validation"] == [(40, 0.5)]
    assert state["curves"]["loss of each resolution"] == {EVIL: [(40, 1.0)]}
    assert state["evaluations"] == [{"step": 40, "kid": 0.25}]
    assert state["pictures"] == ["samples-00000040.png", "reconstructions-00000040.png", "samples-00000020.png"]
    assert state["reports"] == ["report.html"]


def test_a_run_that_has_logged_nothing_has_a_state(run):
    (run.path / "log.jsonl").unlink()
    state = state_of(run)
    assert (state["step"], state["seconds_left"], state["age"]) == (0, None, None)


def test_a_long_curve_is_thinned_and_ends_where_it_ended(run):
    rows = [json.dumps({"step": n, "loss": 1.0}) for n in range(1, 10_001)]
    run.log.write_text("\n".join(rows) + "\n")
    steps = [step for step, _ in state_of(run)["curves"]["loss"]["training"]]
    assert len(steps) <= 1500
    assert steps == sorted(steps)
    assert steps[-1] == 10_000


def test_the_page_its_state_and_the_runs_pictures_are_served(served, run):
    assert b"/watch.js" in get(served, "/")[1]
    assert get(served, "/watch.js")[0] == 200
    assert json.loads(get(served, "/state")[1])["step"] == 40
    picture = (run.samples / "samples-00000040.png").read_bytes()
    assert get(served, "/samples/samples-00000040.png") == (200, picture)
    assert get(served, "/reports/report.html") == (200, b"a report")


@pytest.mark.parametrize(
    "path",
    [
        "/config.yaml",
        "/samples/out.png",
        "/samples/..%2Flog.jsonl",
        "/samples/..%2F..%2Foutside.html",
        "/reports/..%2Foutside.html",
        "/reports/../outside.html",
        "/reports/config.yaml",
        "/reports//etc/passwd",
        "/watch/page.html",
    ],
)
def test_nothing_else_is_served(served, path):
    status, content = get(served, path)
    assert status == 404
    assert b"secret" not in content


def test_other_hosts_and_origins_are_refused(served):
    assert get(served, "/state", Host="evil.example")[0] == 403
    assert get(served, "/state", Origin="http://evil.example")[0] == 403


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_html():
    for name in ("page.html", "watch.js"):
        text = (Path(infdiff.watch.__file__).parent / name).read_text()
        assert re.findall(r"https?://[^\"' ]*", text.replace("http://www.w3.org/2000/svg", "")) == []
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text) == []


@pytest.mark.long
def test_names_are_shown_as_text_in_a_browser(served, run):
    browser = shutil.which("chromium") or pytest.skip("no chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    shown = subprocess.run([browser, *options, served.url], capture_output=True, text=True, timeout=120).stdout
    assert "onerror" in shown
    assert "<img src=x" not in shown
    assert '<img src="x"' not in shown
    assert shown.count("<polyline") >= 4
    assert "step 40 of 100, about 2 min left" in shown


def test_bad_input_is_one_line(command, run, tmp_path):
    assert_one_line_error(command("watch", "--run", tmp_path / "nowhere"), "is not a run directory")
    assert_one_line_error(command("watch", "--run", run.path, "--port", 70000), "--port 70000")
    assert_one_line_error(command("watch"), "no run in runs/")


def test_an_interrupt_ends_the_command(command, run, interrupted):
    result = command("watch", "--run", run.path, "--port", "0")
    assert (result.returncode, result.stderr) == (130, "")
    assert result.stdout.endswith("ended\n")

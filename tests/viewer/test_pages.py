"""The pages' server: tiles that agree, requests given up, pictures that are refused, jobs."""

import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.trained import TrainedModel
from infdiff.viewer.serve import painter_for
from infdiff.viewer.worker import AbandonedError, Worker
from infdiff.viewer.zoomed import ZoomedImage
from tests.conftest import TINY, assert_one_line_error, copy_of, pixels
from tests.viewer.conftest import served


def ask(running, path, body=None):
    """(status, content) of a request, JSON read."""
    try:
        with urllib.request.urlopen(running.url + path, body, timeout=60) as response:
            content = response.read()
            status, kind = response.status, response.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        content, status, kind = error.read(), error.code, error.headers["Content-Type"]
    return status, json.loads(content) if kind == "application/json" else content


def as_png(values):
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


def picture(height=12, width=20):
    return as_png(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def finished(running, job):
    for _ in range(600):
        status, state = ask(running, f"api/jobs/{job}")
        assert status == 200
        if not state["running"]:
            return state
        time.sleep(0.1)
    raise AssertionError("the job did not end")


def test_the_layout_is_told(running):
    _, run = ask(running, "api/run")
    assert run["size"] == [512, 512]
    assert (run["levels"], run["firstLevel"], run["tile"], run["seeds"]) == (9, 4, 32, [0])
    for page in ("", "edit", "static/view.js", "static/openseadragon.min.js"):
        assert ask(running, page)[0] == 200


def test_finer_tiles_agree_with_coarser_ones(running):
    coarse = np.zeros(())
    for level in (4, 5, 6):
        status, content = ask(running, f"tiles/3/{level}/0_0.png")
        assert status == 200
        tile = np.asarray(Image.open(io.BytesIO(content))).astype(float)
        if level > 4:
            reduced = tile.reshape(tile.shape[0] // 2, 2, tile.shape[1] // 2, 2, 3).mean((1, 3))
            shared = coarse[: reduced.shape[0], : reduced.shape[1]]
            assert 10 * np.log10(255**2 / ((reduced - shared) ** 2).mean()) > 45
            assert tile.std() > 0
        coarse = tile
    # What a viewer without this server reads is there.
    folder = running.folder / "seed-3"
    assert {"image.dzi", "index.html", "openseadragon.min.js", "openseadragon-LICENSE.txt"} <= {
        p.name for p in folder.iterdir()
    }
    assert "http" not in (folder / "index.html").read_text()
    assert all((folder / "image_files" / str(level) / "0_0.png").exists() for level in range(7))


def test_a_tile_does_not_depend_on_the_way_to_it(painter, tmp_path):
    def nothing(drawing):
        pass

    there = ZoomedImage(painter, 5, tmp_path / "a")
    for level in (4, 5, 6):
        there.tile(level, 0, 0, nothing)
    at_once = ZoomedImage(painter, 5, tmp_path / "b").tile(6, 1, 1, nothing)
    assert (pixels(there.tile(6, 1, 1, nothing)) == pixels(at_once)).all()
    other = ZoomedImage(painter, 6, tmp_path / "c").tile(6, 1, 1, nothing)
    assert (pixels(other) != pixels(at_once)).any()


@pytest.mark.parametrize(
    "path",
    [
        "0/4/1_0.png",
        "0/10/0_0.png",
        "-1/4/0_0.png",
        "0/4/0_0.jpg",
        "99999999999/4/0_0.png",
        "x/4/0_0.png",
        "0/4/..%2f0_0.png",
    ],
)
def test_tiles_that_are_not_there(running, path):
    status, content = ask(running, f"tiles/{path}")
    assert status in (400, 404)
    assert "\n" not in content["error"]
    assert not any(running.folder.rglob("*.png"))


@pytest.mark.parametrize(
    "path",
    [
        "static/../serve.py",
        "static/..%2fserve.py",
        "static/%2e%2e/%2e%2e/errors.py",
        "static//etc/hostname",
        "static/%2fetc%2fhostname",
        "static/..%5cserve.py",
        "static/style.css%00.js",
        "/etc/hostname",
        "%2e%2e/config.yaml",
        "zoom.json",
    ],
)
def test_no_file_but_the_pages_own_is_served(running, path):
    status, content = ask(running, path)
    assert status == 404
    assert content["error"].endswith("not here")


def test_a_tile_that_nobody_waits_for_ends_within_a_step(painter, tmp_path):
    image, worker, steps = ZoomedImage(painter, 0, tmp_path), Worker(), []
    begun, wanted = threading.Event(), [True]

    def draw(check):
        def report(drawing):
            steps.append(drawing)
            begun.set()
            while wanted[0]:  # as long as a step takes
                time.sleep(0.01)
            check()

        return image.tile(5, 0, 0, report)

    def stop():
        begun.wait()
        wanted[0] = False

    threading.Thread(target=stop).start()
    with pytest.raises(AbandonedError):
        worker.do(draw, lambda: wanted[0])
    assert worker.do(lambda check: "next", lambda: True) == "next"
    assert len(steps) == 1
    assert not any(tmp_path.rglob("*.png"))


def test_a_closed_worker_ends_within_a_step_and_begins_nothing(painter, tmp_path):
    image, worker, begun, ended = ZoomedImage(painter, 0, tmp_path), Worker(), threading.Event(), []

    def draw(check):
        def report(drawing):
            begun.set()
            check()
            time.sleep(0.01)

        return image.tile(9, 7, 7, report)

    def wait():
        try:
            worker.do(draw, lambda: True)
        except AbandonedError as error:
            ended.append(error)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    worker.close()
    for thread in threads:
        thread.join()
    assert len(ended) == 2
    assert not image.pyramid.path(9, 7, 7).exists()


def test_the_end_of_the_server_is_the_end_of_its_threads(painter, tmp_path):
    before = set(threading.enumerate())
    with served(painter, tmp_path / "tiles") as running:
        assert ask(running, "tiles/0/4/0_0.png")[0] == 200
        assert len(set(threading.enumerate()) - before) >= 3
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # connections that are closed
        assert not thread.is_alive()


def test_a_closed_connection_is_given_up(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(f"GET /tiles/9/9/0_0.png HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n\r\n".encode())
        while ask(running, "api/progress")[1]["drawing"] is None:
            time.sleep(0.01)
    while ask(running, "api/progress")[1]["drawing"] is not None:
        time.sleep(0.01)
    assert not (running.folder / "seed-9" / "image_files" / "9" / "0_0.png").exists()


def test_two_browsers_at_once(running):
    contents = []
    threads = [threading.Thread(target=lambda: contents.append(ask(running, "tiles/1/5/0_0.png")[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contents) == 4
    assert len(set(contents)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture at all", "cannot be read as an image"),
        (picture()[:200], "cannot be read as an image"),
        (as_png(np.zeros((10000, 10000), dtype=np.uint8)), "megapixels"),
        (b"", "cannot be read as an image"),
    ],
)
def test_pictures_that_are_refused(running, content, message):
    status, answer = ask(running, "api/pictures?name=cat.png", content)
    assert status == 400
    assert message in answer["error"]
    assert "cat.png" in answer["error"]
    assert "\n" not in answer["error"]


def test_uploads_are_limited(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        head = f"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nContent-Length: {40 * 2**20}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.makefile("rb").read()  # before any of the picture
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"40 MiB: at most 32 MiB" in answer


def test_filling_and_enlarging(running):
    _, given = ask(running, "api/pictures?name=cat.png", picture())
    name = given["picture"]
    mask = np.zeros((12, 20), dtype=np.uint8)
    mask[3:8, 4:10] = 255
    _, masked = ask(running, f"api/pictures/{name}/mask", as_png(mask))
    status, job = ask(running, f"api/pictures/{name}/jobs?mask={masked['mask']}&count=2&size=40", b"")
    assert status == 200
    state = finished(running, job["job"])
    assert (state["made"], state["error"], state["size"]) == (2, None, [24, 40])
    results = [ask(running, f"api/jobs/{job['job']}/{i}.png")[1] for i in range(2)]
    assert [Image.open(io.BytesIO(content)).size for content in results] == [(40, 24)] * 2
    status, enlarged = ask(running, f"api/pictures/{name}/bicubic.png?height=24&width=40")
    resized = Image.open(io.BytesIO(picture())).resize((40, 24), Image.Resampling.BICUBIC)
    assert (np.asarray(Image.open(io.BytesIO(enlarged))) == np.asarray(resized)).all()


def test_two_jobs_at_once_both_end(running):
    jobs = []
    for _ in range(2):
        name = ask(running, "api/pictures", picture())[1]["picture"]
        jobs.append(ask(running, f"api/pictures/{name}/jobs?size=40", b"")[1]["job"])
    first, second = (finished(running, job) for job in jobs)
    assert (first["made"], first["error"]) == (second["made"], second["error"]) == (1, None)
    assert ask(running, f"api/jobs/{jobs[0]}/0.png")[1] == ask(running, f"api/jobs/{jobs[1]}/0.png")[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture at all", "cannot be read as an image"),
        (as_png(np.zeros((10000, 10000), dtype=np.uint8)), "megapixels"),
        (as_png(np.zeros((5, 5), dtype=np.uint8)), "5"),
    ],
)
def test_masks_that_are_refused(running, content, message):
    name = ask(running, "api/pictures", picture())[1]["picture"]
    status, answer = ask(running, f"api/pictures/{name}/mask?name=m.png", content)
    assert status == 400
    assert "m.png" in answer["error"]
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_a_run_that_is_trained_further_changes_nothing(command, points_run, tmp_path):
    run = copy_of(points_run, tmp_path)
    trained = TrainedModel.load(run, torch.device("cpu"))
    painter = painter_for(trained, SamplingOptions.of(trained.method, (16, 16)), (64, 64))
    with served(painter, tmp_path / "tiles") as running:
        first = ask(running, "tiles/3/5/0_0.png")[1]
        result = command("train", "--out", "runs/x", "--steps", 4, *TINY)
        assert result.returncode == 0, result.stderr
        assert TrainedModel.load(run, torch.device("cpu")).step == 4
        assert ask(running, "api/run")[1]["step"] == 2
        for path in (tmp_path / "tiles").rglob("*.png"):
            path.unlink()
        assert ask(running, "tiles/3/5/0_0.png")[1] == first
        name = ask(running, "api/pictures", picture())[1]["picture"]
        job = ask(running, f"api/pictures/{name}/jobs?size=40", b"")[1]["job"]
        assert finished(running, job)["error"] is None


def test_jobs_that_are_refused(running):
    name = ask(running, "api/pictures", picture())[1]["picture"]
    for query, message in (
        ("", "nothing to do"),
        ("?size=5", "smaller than the image"),
        ("?size=9000x9000", "megapixels"),
        ("?size=40&count=99", "count 99: want a whole number from 1 to 16"),
        ("?mask=0123", "not kept any more"),
    ):
        status, answer = ask(running, f"api/pictures/{name}/jobs{query}", b"")
        assert status in (400, 404)
        assert message in answer["error"]
    assert ask(running, "api/jobs/none")[0] == 404


def test_a_cancelled_job_ends(running):
    name = ask(running, "api/pictures", picture())[1]["picture"]
    job = ask(running, f"api/pictures/{name}/jobs?size=200&count=16", b"")[1]["job"]
    ask(running, f"api/jobs/{job}/cancel", b"")
    state = finished(running, job)
    assert state["cancelled"]
    assert state["made"] < 16
    assert state["error"] is None


def test_the_command_refuses_what_cannot_work(command, points_run, edm_run, tmp_path, running):
    copy_of(points_run, tmp_path)
    run = ("--run", "runs/x")
    assert_one_line_error(command("view", *run, "--port", running.port), f"--port {running.port}", "in use")
    assert_one_line_error(command("view", *run, "--seed", "0,a"), "--seed a")
    assert_one_line_error(command("view", *run, "--res", "0"), "--res")
    assert_one_line_error(command("view", "--run", edm_run), "infinity_diff")


def test_an_interrupt_ends_the_command(command, points_run, tmp_path, interrupted):
    copy_of(points_run, tmp_path)
    result = command("view", "--run", "runs/x", "--res", "64", "--port", "0")
    assert (result.returncode, result.stderr) == (130, "")
    assert result.stdout.endswith("ended\n")


def test_measuring_prints_time_and_memory(command, points_run, tmp_path):
    copy_of(points_run, tmp_path)
    result = command("view", "--run", "runs/x", "--res", "64", "--measure", "--tiles", "2")
    assert result.returncode == 0, result.stderr
    for words in ("first tile:", "2 further tiles", "dB", "GiB"):
        assert words in result.stdout


def test_sample_writes_pyramids(command, points_run, tmp_path):
    copy_of(points_run, tmp_path)
    given = ("sample", "--run", "runs/x", "--res", "24x40", "--n", "2", "--seed", "1")
    assert command(*given, "--out", "plain").returncode == 0
    result = command(*given, "--out", "tiled", "--pyramid")
    assert result.returncode == 0, result.stderr
    for index in ("00000", "00001"):
        tile = pixels(tmp_path / "tiled" / index / "image_files" / "6" / "0_0.png")
        assert (tile == pixels(tmp_path / "plain" / f"{index}.png")).all()
        assert (tmp_path / "tiled" / index / "index.html").exists()
    assert_one_line_error(command(*given, "--pyramid", "--interpolate", "a", "b"), "--pyramid", "--interpolate")

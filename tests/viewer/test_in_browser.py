"""The pages in a real browser: zoom, links, masks, jobs and downloads, by mouse and by keyboard."""

import json
import re
import shutil
import threading
import time
import urllib.request
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.trained import TrainedModel
from infdiff.viewer import zoomed
from infdiff.viewer.serve import painter_for
from tests.conftest import TINY, pixels, trained_run
from tests.viewer.browser import chromium, until
from tests.viewer.conftest import served


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One server for all tests: 32 pixels, doubled five times."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium: apt-get install chromium")
    run = trained_run(tmp_path_factory.mktemp("run"), [*TINY, "data.size=32"])
    trained = TrainedModel.load(run, torch.device("cpu"))
    painter = painter_for(trained, SamplingOptions.of(trained.method, (32, 32)), (1024, 1024))
    with served(painter, tmp_path_factory.mktemp("served") / "tiles") as running:
        yield running


# A window with a view in which few tiles are in sight.
SMALL = {"width": 320, "height": 400}
SMALL_VIEW = "#views { flex: none; min-height: 0; height: 120px; width: 160px; } .view { min-height: 0; }"


@pytest.fixture
def page(browser, running):
    """An empty page. Nothing that a test does may ask for anything elsewhere, or make a script complain."""
    with browser.page("about:blank", **SMALL) as page:
        yield page
        assert {urlsplit(url).netloc for url in page.requests()} == {f"127.0.0.1:{running.port}"}
        assert page.complaints() == []


@pytest.fixture
def zoom(page, running):
    """The page of a zoom, with seed 0 drawn."""
    smaller = f"document.head.append(Object.assign(document.createElement('style'), {{ textContent: '{SMALL_VIEW}' }}))"
    page.send("Page.addScriptToEvaluateOnNewDocument", source=f"addEventListener('DOMContentLoaded', () => {smaller})")
    page.open(running.url)
    page.until(ALL_THERE)
    return page


@pytest.fixture
def edit(page, running):
    """The page for enlarging and filling."""
    page.open(f"{running.url}edit")
    return page


@pytest.fixture
def photo(tmp_path):
    """A smooth picture of 24 x 20 pixels, with a name that is no ASCII."""
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    path = tmp_path / "a café.png"
    Image.fromarray(small).resize((24, 20), Image.Resampling.BICUBIC).save(path)
    return path


# Every viewer shows all that is in sight, as sharp as it gets.
ALL_THERE = (
    "[...views.values()].length && [...views.values()].every(v => v.viewer.isOpen() && !v.pending.size"
    " && v.viewer.world.getItemAt(0)?.getFullyLoaded())"
)


def link_of(page):
    """The seeds, place and zoom that the address of the page says."""
    return {name: value[0] for name, value in parse_qs(urlsplit(page.value("location.href")).fragment).items()}


def zooms(page):
    """The zoom of each viewer, in the order of the page."""
    return page.value("[...views.values()].map(v => v.viewer.viewport.getZoom(false))")


def deepest(running, seed):
    """The finest level of which a tile is there."""
    return max(int(path.parent.name) for path in running.folder.glob(f"seed-{seed}/image_files/*/*.png"))


def progress(running):
    with urllib.request.urlopen(f"{running.url}api/progress", timeout=30) as response:
        return json.load(response)


def test_zooming_in_draws_what_is_in_sight_and_the_link_says_the_place(zoom, running):
    before, start = deepest(running, 0), zooms(zoom)[0]
    for _ in range(3):
        zoom.click("#in")
    zoom.until(f"Math.abs(views.get(0).viewer.viewport.getZoom(true) / {8 * start} - 1) < 0.01")
    zoom.until(ALL_THERE)
    assert deepest(running, 0) == before + 3
    # The canvas shows an image: it is neither empty nor of one colour.
    assert (
        zoom.value(
            "(c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"
            "(document.querySelector('.view canvas'))"
        )
        > 20
    )
    link = zoom.until(
        f"Math.abs(Number(/zoom=([\\d.]+)/.exec(location.hash)[1]) / {8 * start} - 1) < 0.01 && location.href"
    )
    assert link_of(zoom)["seeds"] == "0"
    zoom.open("about:blank")
    zoom.open(link)
    zoom.until(ALL_THERE)
    assert zooms(zoom)[0] == pytest.approx(8 * start, rel=0.01)


def test_seeds_are_shown_next_to_each_other_and_move_together(zoom):
    zoom.value("document.getElementById('seed').value = 1")
    zoom.click("#add")
    zoom.until("views.size === 2 && [...views.values()].every(v => v.viewer.isOpen())")
    zoom.until("location.hash.includes('seeds=0,1&')")
    zoom.click("#in")
    zoom.until("(z => z[0] === z[1])([...views.values()].map(v => v.viewer.viewport.getZoom(false)))")
    zoom.until(ALL_THERE)
    assert [zoom.text(f".view:nth-child({i}) .name span") for i in (1, 2)] == ["seed 0", "seed 1"]
    zoom.click(".view:nth-child(1) .name button")
    zoom.until("location.hash.includes('seeds=1&')")
    assert zoom.value("views.size") == 1
    zoom.value("document.getElementById('seed').value = -5")
    zoom.click("#add")
    assert "whole numbers" in zoom.text("#error")


def test_the_zoom_obeys_the_keyboard(zoom):
    start = zooms(zoom)[0]
    zoom.tab_to(".openseadragon-canvas")
    zoom.press("+", "+")
    assert zooms(zoom)[0] == pytest.approx(4 * start)
    centre = zoom.value("views.get(0).viewer.viewport.getCenter(false).x")
    zoom.press("ArrowRight")
    zoom.until(f"views.get(0).viewer.viewport.getCenter(false).x > {centre}")
    zoom.press("-")
    assert zooms(zoom)[0] == pytest.approx(2 * start)
    zoom.press("0")
    assert zooms(zoom)[0] == pytest.approx(start)
    zoom.tab_to("#seed")
    zoom.press("0")  # a digit of a seed here
    assert zoom.value("document.getElementById('seed').value").endswith("0")


def test_leaving_the_page_ends_the_drawing(page, running, monkeypatch):
    begun, refine = threading.Event(), zoomed.refine

    def slow(*arguments, on_step, **options):
        def step():
            begun.set()
            time.sleep(0.2)
            on_step()

        return refine(*arguments, on_step=step, **options)

    monkeypatch.setattr(zoomed, "refine", slow)
    page.open(f"{running.url}#seeds=7&x=0.3&y=0.3&zoom=8")
    page.until("document.getElementById('status').textContent.includes('step')")
    assert begun.wait(30)
    page.open(f"{running.url}edit")
    until(lambda: progress(running), lambda now: now["drawing"] is None and now["waiting"] == 0)
    drawn = progress(running)["drawn"]
    time.sleep(0.5)
    assert progress(running)["drawn"] == drawn
    assert deepest(running, 7) < running.painter.halvings + 6


def give(edit, photo):
    """Choose a picture, and wait until it can be painted."""
    edit.give_files("#picture", photo)
    edit.until("!document.getElementById('work').hidden")
    assert edit.text("#error") == ""


def painted(edit):
    """The mask as it is painted, (20, 24) booleans."""
    values = edit.value("[...document.getElementById('paint').getContext('2d').getImageData(0, 0, 24, 20).data]")
    return np.array(values).reshape(20, 24, 4)[..., 3] > 127


def fill(edit):
    """Begin, and wait for both variants; the parts done that were seen meanwhile."""
    edit.value(
        "window.seen = []; new MutationObserver(() => seen.push(document.getElementById('progress').value))"
        ".observe(document.getElementById('progress'), { attributes: true, attributeFilter: ['value'] })"
    )
    edit.click("#go")
    edit.until("document.querySelectorAll('#variants button').length === 2 && !document.getElementById('go').disabled")
    return edit.value("seen")


def shown_part(edit):
    """The percentage of the width that shows bicubic interpolation, as the images and the slider say it."""
    clip = re.search(r"([\d.]+)%", edit.value("document.getElementById('after').style.clipPath"))
    assert float(clip[1]) == float(edit.value("document.getElementById('slider').value"))
    return float(clip[1])


def downloaded(edit, folder):
    """The file that the button for it leaves."""
    edit.browser.send(
        "Browser.setDownloadBehavior", behavior="allow", browserContextId=edit.context, downloadPath=str(folder)
    )
    edit.click("#save")
    return until(lambda: list(folder.glob("*.png")), lambda found: len(found) == 1)[0]


def test_a_picture_is_filled_compared_and_downloaded(edit, photo, tmp_path):
    give(edit, photo)
    edit.drag([edit.place("#paint", x, 0.5) for x in (0.3, 0.4, 0.6)])
    mask = painted(edit)
    assert 0 < mask.sum() < mask.size / 2
    seen = fill(edit)
    assert seen == sorted(seen)
    assert any(0 < part < 1 for part in seen)
    assert edit.text("#status") == "2 made"
    edit.click("#variants button:nth-child(2)")
    assert edit.value("document.querySelector('#variants button:nth-child(2)').getAttribute('aria-pressed')") == "true"

    assert shown_part(edit) == 50
    edit.drag([edit.place("#compare", 0.5), edit.place("#compare", 0.2)])
    assert shown_part(edit) == pytest.approx(20, abs=1)
    edit.tab_to("#slider")
    edit.press("ArrowRight")
    assert shown_part(edit) == pytest.approx(21, abs=1)

    (tmp_path / "downloads").mkdir()
    path = downloaded(edit, tmp_path / "downloads")
    assert path.name == "a café-24x20-2.png"
    given, made = pixels(photo), pixels(path)
    assert (made[~mask] == given[~mask]).all()
    assert (made[mask] != given[mask]).any()


def test_a_mask_is_painted_and_filled_by_keyboard(edit, photo):
    give(edit, photo)
    assert edit.value("document.getElementById('cursor').hidden")
    edit.tab_to("#paint")
    edit.press("]", " ", "ArrowRight", "ArrowRight", "ArrowDown", " ", "ArrowDown")
    mask = painted(edit)
    assert mask[10, 12:15].all()
    # A ring shows where the brush is.
    centre = (
        "(b => [b.left + b.width / 2, b.top + b.height / 2])(document.getElementById('cursor').getBoundingClientRect())"
    )
    at = edit.value("[painter.at[0] / painter.canvas.width, painter.at[1] / painter.canvas.height]")
    assert edit.value(centre) == pytest.approx(edit.place("#paint", *at), abs=1)
    edit.press("z")
    assert not painted(edit).any()
    edit.press(" ", "ArrowLeft", "ArrowLeft", " ")
    assert painted(edit).any()
    edit.value("document.getElementById('count').value = 1")
    edit.tab_to("#go")
    edit.press("Enter")
    edit.until("document.querySelectorAll('#variants button').length === 1")


def said(edit, what):
    """Wait until the page says something in its alert."""
    edit.until(f"document.getElementById('error').innerText.includes({json.dumps(what)})")


def test_what_cannot_work_is_said_on_the_page(browser, running, photo, tmp_path):
    broken, large, mask = tmp_path / "notes.png", tmp_path / "large.png", tmp_path / "mask.png"
    broken.write_text("no picture")
    Image.new("1", (10000, 10000)).save(large)
    Image.new("L", (5, 5), 255).save(mask)
    with browser.page(f"{running.url}edit", **SMALL) as edit:
        edit.give_files("#picture", broken)
        said(edit, "notes.png: cannot be read as an image")
        edit.give_files("#picture", large)
        said(edit, "large.png: more than 17 megapixels")
        assert not edit.value("document.getElementById('work').offsetParent")
        give(edit, photo)
        edit.click("#go")
        said(edit, "nothing to do")
        edit.give_files("#mask", mask)
        said(edit, "mask.png")
        assert not painted(edit).any()
        assert all("status of 400" in complaint for complaint in edit.complaints())

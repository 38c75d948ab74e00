"""Training on and comparing with a folder or zip of images: prepared once, found again, prepared again when changed."""

import json
import os
import shutil

import pytest
from PIL import Image

from infdiff.config.files import load_config
from infdiff.data.store import ImageStore
from infdiff.runs.prepared_data import enclosing, prepared
from tests.conftest import TINY, assert_one_line_error


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def said(result):
    """The line about the preparation."""
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if " files" in line]
    return line


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_or_zip_is_prepared_once_and_later_calls_find_it(command, photos, tmp_path, cache, kind):
    data = photos if kind == "folder" else shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    (photos / "broken.png").write_text("no image")
    train = ("train", "--data", data, "--out", "runs/x", "--steps")
    result = command(*train, 2, *TINY)
    files = 13 if kind == "folder" else 12
    (store,) = cache.iterdir()
    assert said(result) == (
        f"{data}: 12 images from {files} files, at 16 pixels in {store} (prepare large sets with prepare-data)"
    )
    assert ("left out: broken.png: " in result.stdout) == (kind == "folder")
    assert ImageStore(store).header.size == (16, 16)
    assert load_config(tmp_path / "runs" / "x" / "config.yaml").data.path == str(store)
    # Resumed, and used by all that need data; the folder itself is needed no more.
    written = store.stat().st_mtime_ns
    assert "prepared before, " in said(command(*train, 3, *TINY))
    assert (list(cache.iterdir()), store.stat().st_mtime_ns) == ([store], written)
    shutil.rmtree(photos)
    small = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8"]
    assert command("train-latent", "--steps", 2, *small).returncode == 0
    assert command("sample", "--steps", 2).returncode == 0
    assert command("evaluate", "--n", 5, "--steps", 2, "--metrics", "spectrum", "--json", "a.json").returncode == 0
    assert json.loads((tmp_path / "a.json").read_text())["results"][0]["real"] > 0


def test_changed_files_are_prepared_again_and_another_run_is_wanted(command, photos, cache):
    train = ("train", "--data", photos, "--out", "runs/x", "--steps", 1, *TINY)
    assert "prepared before" not in said(command(*train))
    Image.new("RGB", (30, 30)).save(photos / "more.png")
    result = command(*train)
    assert "13 images from 13 files" in result.stdout
    assert_one_line_error(result, "holds a run with other settings", "data.path")
    assert len(list(cache.iterdir())) == 2
    os.utime(photos / "0.png", (1, 1))
    assert "prepared before" not in said(command(*train[:4], "runs/y", *train[5:]))


def test_images_are_prepared_at_the_size_of_the_largest_resolution(photos):
    lines = []
    size = enclosing([(8, 8), (12, 24), (16, 16)])
    assert size == (16, 24)
    store = ImageStore(prepared(photos, size, lines.append))
    assert store.holds((12, 24))
    assert store.holds((16, 16))
    native = ImageStore(prepared(photos, None, lines.append))
    assert native.header.size is None
    assert native.read(0).size == (60, 40)
    assert [line.split(" in ")[0].split(", ")[-1] for line in lines] == ["at 16x24 pixels", "at native size"]


def test_evaluation_takes_a_folder_of_real_images(command, photos, tmp_path, cache):
    shutil.copytree(photos, tmp_path / "made")
    for path in (tmp_path / "made").rglob("*.png"):
        Image.open(path).resize((32, 32)).save(path)
    call = ("evaluate", "--images", "made", "--data", photos, "--held-out", photos, "--res", "32,16")
    result = command(*call, "--metrics", "spectrum", "--json", "a.json")
    assert result.returncode == 0, result.stderr
    assert [row["size"] for row in json.loads((tmp_path / "a.json").read_text())["results"]] == ["32", "16"]
    (store,) = cache.iterdir()
    assert ImageStore(store).header.size == (32, 32)


def test_what_cannot_be_prepared_is_one_line_and_leaves_nothing(command, tmp_path, cache):
    (tmp_path / "empty").mkdir()
    assert_one_line_error(command("train", "--data", "empty", "--out", "r"), "no images in empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    assert_one_line_error(command("train", "--data", "bad", "--out", "r"), "none of the 1 images in bad is usable")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "cache", "empty"]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["2024", "photos #1", "a: b"])
def test_a_path_is_text_whatever_yaml_would_make_of_it(command, photos, tmp_path, name):
    photos.rename(tmp_path / name)
    assert said(command("train", "--data", name, "--out", "x", "--steps", 1, *TINY)).startswith(f"{name}: 12 images")

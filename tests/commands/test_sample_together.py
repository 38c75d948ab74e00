"""Several processes sample what one does: they share the images, or the rows of one image."""

import json

import numpy as np
import pytest

from tests.commands import in_turn
from tests.conftest import assert_one_line_error, command_in, copy_of, pixels
from tests.together import finish, free_port, start

IMAGES = ["--n", 5, "--batch", 2, "--steps", 2]
LARGE = ["--res", "40x24", "--tile", 7, "--steps", 3]
CALLS = {
    "images": IMAGES,
    "bands": LARGE,
    "pages": ["--n", 2, "--steps", 1, "--pyramid"],
    "failed": ["--n", 2, "--steps", 1],
}


def words(name):
    return ["sample", "--run", "runs/x", *map(str, CALLS[name]), "--out"]


@pytest.fixture(scope="module")
def folder(points_run, tmp_path_factory):
    """Holds the run, whose Gaussian is not fitted yet, and a file's name that is taken by a folder."""
    found = tmp_path_factory.mktemp("together")
    copy_of(points_run, found)
    (found / "failed" / "00001.png").mkdir(parents=True)
    return found


@pytest.fixture(scope="module")
def shared(folder):
    """Exit codes, stdout and stderr of every call, by both of the processes that run it."""
    calls = [[free_port(), [*words(name), name]] for name in CALLS]
    codes, outputs = finish(start(2, [in_turn.__file__, json.dumps(calls)], folder))
    assert codes == [0, 0], outputs
    first, second = (json.loads(printed) for printed, _ in outputs)
    return dict(zip(CALLS, zip(first, second, strict=True), strict=True))


def alone(folder, name):
    """The folder of the same call by one process."""
    result = command_in(folder)(*words(name), f"{name}-alone")
    assert result.returncode == 0, result.stderr
    return folder / f"{name}-alone"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_are_those_of_one_process(folder, shared):
    first, second = shared["images"]
    assert (first[0], second) == (0, [0, "", ""])
    assert "2 processes share the images\n" in first[1]
    assert first[1].endswith("5 images of 16 pixels in images, all of them in images/grid.png\n")
    expected = alone(folder, "images")
    assert names(folder / "images") == names(expected)
    for path in expected.iterdir():
        assert (folder / "images" / path.name).read_bytes() == path.read_bytes(), path.name


def test_fewer_images_than_processes_are_drawn_in_bands(folder, shared):
    first, second = shared["bands"]
    assert (first[0], second) == (0, [0, "", ""])
    assert "2 processes share the rows of each image\n" in first[1]
    expected = alone(folder, "bands")
    assert np.abs(pixels(folder / "bands" / "00000.png") - pixels(expected / "00000.png")).max() <= 1
    records = [json.loads((made / "samples.json").read_text()) for made in (folder / "bands", expected)]
    assert records[0] == records[1]


def test_pyramids_are_shared(folder, shared):
    assert [code for code, _, _ in shared["pages"]] == [0, 0]
    assert names(folder / "pages") == ["00000", "00001", "samples.json"]
    assert (folder / "pages" / "00001" / "index.html").exists()


def test_the_first_process_says_what_another_cannot_do(shared):
    (code, _, problem), second = shared["failed"]
    assert (code, second[0], second[2]) == (2, 2, "")
    assert problem.splitlines()[-1].startswith("error: cannot write failed/00001.png")


def test_interpolation_is_of_one_process(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = command_in(folder)("sample", "--run", "runs/x", "--interpolate", "a.png", "b.png")
    assert_one_line_error(result, "sample --interpolate works in one process", "torchrun")

"""Folders of numbered images: filled by several calls and processes, whole images alone."""

import threading

import pytest
import torch

from infdiff.errors import UserError
from infdiff.images.resumable_folder import fill_folder, filled, image_names, open_folder
from tests.conftest import pixels

SETTINGS = {"task": "generate", "size": "8", "seed": 0}


class Maker:
    """Image i is of one grey, i / 10; those of `broken` have a pixel that is not a number."""

    def __init__(self, broken=()):
        self.broken, self.calls = set(broken), []

    def __call__(self, numbers):
        self.calls.append(list(numbers))
        images = torch.stack([torch.full((3, 8, 8), number / 10) for number in numbers])
        for place, number in enumerate(numbers):
            if number in self.broken:
                images[place, 1, 2, 3] = float("nan")
        return images


def grey(folder, number):
    values = pixels(folder / image_names([number])[0])
    assert len(set(values.flatten())) == 1
    return values[0, 0, 0]


def test_what_is_there_is_not_made_again(tmp_path):
    folder = open_folder(tmp_path, SETTINGS)
    first, second, told = Maker(), Maker(), []
    fill_folder(first, folder, indices=range(3), batch=2)
    assert first.calls == [[0, 1], [2]]
    fill_folder(second, folder, indices=range(6), batch=2, on_images=told.append)
    assert second.calls == [[3, 4], [5]]
    assert told == [3, 2, 1]
    assert filled(folder, 6) == (list(range(6)), [])
    assert [grey(folder, i) for i in range(6)] == [round((i / 10 + 1) * 127.5) for i in range(6)]


def test_images_that_are_not_finite_are_marked_and_not_made_again(tmp_path):
    folder = open_folder(tmp_path, SETTINGS)
    maker = Maker(broken=[1, 3])
    fill_folder(maker, folder, indices=range(4), batch=4)
    assert filled(folder, 4) == ([0, 2], [1, 3])
    fill_folder(maker, folder, indices=range(4), batch=4)
    assert len(maker.calls) == 1


def test_one_process_waits_for_the_others(tmp_path):
    folder = open_folder(tmp_path, SETTINGS)
    fill_folder(Maker(), folder, indices=range(0, 5, 2), batch=9)
    other = threading.Timer(0.3, lambda: fill_folder(Maker(), folder, indices=range(1, 5, 2), batch=9))
    other.start()
    assert filled(folder, 5, wait=0.05) == (list(range(5)), [])
    other.join()


def test_a_folder_for_each_setting(tmp_path):
    first = open_folder(tmp_path, SETTINGS)
    assert open_folder(tmp_path, dict(reversed(SETTINGS.items()))) == first
    assert open_folder(tmp_path, SETTINGS | {"seed": 1}) != first
    assert '"seed": 0' in (first / "settings.json").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        open_folder(tmp_path / "file", SETTINGS)

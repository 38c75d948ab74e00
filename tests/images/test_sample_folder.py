"""Folders of samples, contact sheets, and pixel values."""

import json

import pytest
import torch

from infdiff.errors import UserError
from infdiff.images.pixels import from_uint8, to_uint8
from infdiff.images.sample_folder import sample_to_folder
from infdiff.images.write import contact_sheet
from tests.conftest import pixels


def test_pixel_values_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_a_folder_of_samples_says_what_made_it(tmp_path):
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    sheet = sample_to_folder(lambda i: images[i], tmp_path / "out", count=5, batch=2, record={"seed": 3})
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "00004.png", "grid.png", "samples.json"]
    assert json.loads((tmp_path / "out" / "samples.json").read_text()) == {"seed": 3}
    assert (pixels(tmp_path / "out" / "00004.png") == images[4].permute(1, 2, 0).numpy()).all()
    assert pixels(sheet).shape == (2 * 4 + 2, 3 * 6 + 4, 3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        sample_to_folder(
            lambda i: torch.zeros(1, 3, 2, 2, dtype=torch.uint8), tmp_path / "file", count=1, batch=1, record={}
        )


def test_contact_sheet_places_images_row_by_row():
    images = torch.stack([torch.full((3, 2, 2), i, dtype=torch.uint8) for i in range(3)])
    sheet = contact_sheet(images, columns=2, gap=1)
    assert sheet.shape == (3, 5, 5)
    assert sheet[0, ::3, ::3].tolist() == [[0, 1], [2, 255]]


def test_a_failure_leaves_no_empty_folder_and_what_was_there_stays(tmp_path):
    def fail(indices):
        raise MemoryError

    with pytest.raises(MemoryError):
        sample_to_folder(fail, tmp_path / "a", count=2, batch=1, record={})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "b" / ".00000.png.1-0a.partial").touch()  # of a call that was killed
    with pytest.raises(MemoryError):
        sample_to_folder(fail, tmp_path / "b", count=2, batch=1, record={})
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["b", "b/notes.txt"]

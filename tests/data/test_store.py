"""What a store says about its images, and what becomes of one that is damaged."""

import io
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from infdiff.data.demo import DEMO_PATH
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from tests.forking import Forked


def test_a_store_says_which_sizes_it_holds(store, photos, tmp_path):
    assert store.holds((16, 16))
    assert not store.holds((16, 17))
    prepare(open_source(photos), tmp_path / "n.lmdb", Recipe(size=None), progress=False)
    native = ImageStore(tmp_path / "n.lmdb")  # of 40x60, 64x48 and 33x33 pixels
    assert all(native.holds(size) for size in ((40, 60), (64, 48), (33, 33)))
    assert not any(native.holds(size) for size in ((64, 60), (65, 1), (1, 61)))


def test_the_demo_set_is_whole():
    store = ImageStore(DEMO_PATH)
    assert len(store) == 126
    assert store.read(125).size == (128, 128)
    assert (DEMO_PATH.parent / "LICENSE.txt").read_text().startswith("Fluent Emoji")


@contextmanager
def writing_to(path):
    """A transaction that writes to a store."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, lock=False) as environment:
        transaction = environment.begin(write=True)
        yield transaction
        transaction.commit()


def changed(store, tmp_path, **values):
    """A copy of a store with other values in its header, without a checksum."""
    path = tmp_path / "changed.lmdb"
    shutil.copy(store.path, path)
    with writing_to(path) as transaction:
        header = json.loads(transaction.get(b"infdiff-header")) | values
        transaction.put(b"infdiff-header", json.dumps(header).encode())
        transaction.delete(b"infdiff-crc32-infdiff-header")
    return path


@pytest.mark.parametrize(
    "values",
    [
        {"crops": 0},
        {"crops": "x"},
        {"count": -5},
        {"count": "4"},
        {"count": True},
        {"count": 10**12},
        {"count": 1000},
        {"size": [16]},
        {"size": [16, 0]},
        {"size": "abc"},
        {"size": 5},
        {"format": "exe"},
        {"version": 9},
        {"more": 1},
    ],
)
def test_a_header_of_values_that_no_store_has_is_refused(store, tmp_path, values):
    with pytest.raises(UserError, match="is not an infdiff data set") as error:
        ImageStore(changed(store, tmp_path, **values))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((16, 16, 3), np.nan),
        np.zeros((16, 16), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((0, 16, 3), np.uint8),
        np.zeros((16, 16, 3), object),
        None,
    ],
    ids=["nan", "grey", "rgba", "no-rows", "pickle", "png"],
)
def test_raw_entries_that_are_no_rgb_pixels_are_named(store, tmp_path, pixels):
    path = changed(store, tmp_path, format="raw")
    if pixels is not None:
        value = io.BytesIO()
        np.save(value, pixels)
        with writing_to(path) as transaction:
            transaction.put(b"image-000000000", value.getvalue())
            transaction.delete(b"infdiff-crc32-image-000000000")
    with pytest.raises(UserError, match="is damaged: image 0 of 24"):
        ImageStore(path).read(0)


def test_a_flipped_bit_of_an_image_is_named(store, tmp_path):
    path = tmp_path / "flipped.lmdb"
    content = bytearray(Path(store.path).read_bytes())
    value = bytes(store._value(7))
    place = bytes(content).index(value) + len(value) // 2
    content[place] ^= 16
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"flipped.lmdb is damaged: image 7 of 24: its checksum"):
        ImageStore(path).read(7)
    assert ImageStore(path).read(6).tobytes() == store.read(6).tobytes()


def test_a_store_without_checksums_is_read_and_a_broken_image_in_it_named(store, tmp_path):
    path = tmp_path / "old.lmdb"
    shutil.copy(store.path, path)
    with writing_to(path) as transaction:
        sums = [bytes(key) for key, _ in transaction.cursor() if key.startswith(b"infdiff-crc32-")]
        for key in sums:
            transaction.delete(key)
        transaction.put(b"image-000000003", transaction.get(b"image-000000003")[:-40])
    old = ImageStore(path)
    assert len(sums) == 25
    assert old.read(2).tobytes() == store.read(2).tobytes()
    with pytest.raises(UserError, match=r"old.lmdb is damaged: image 3 of 24"):
        old.read(3)


def test_a_store_that_is_cut_off_is_an_error_and_no_end_of_the_process(store, tmp_path):
    """In a process of its own: beyond the end of a mapped file there is SIGBUS."""
    content = Path(store.path).read_bytes()
    program = tmp_path / "read.py"
    program.write_text(
        "import sys; from infdiff.data.store import ImageStore as S; s = S(sys.argv[1]); [*map(s.read, range(24))]"
    )
    path = tmp_path / "cut.lmdb"
    for length in (len(content) // 2, len(content) - 4096, 10_000):
        path.write_bytes(content[:length])
        process = Forked(program, path, folder=tmp_path, environment=os.environ)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "infdiff.errors.UserError" in errors
        assert "cut.lmdb" in errors


def test_a_picture_that_unpacks_to_too_much_is_named(store, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="image 0 of 24: Image size"):
        store.read(0)

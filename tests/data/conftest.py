"""A small store of photographs, two crops of each."""

import pytest

from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore


@pytest.fixture
def store(photos, tmp_path):
    prepare(open_source(photos), tmp_path / "d.lmdb", Recipe(size=(16, 16), crops=2), progress=False)
    return ImageStore(tmp_path / "d.lmdb")

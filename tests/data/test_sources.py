"""Kinds of sources: a class each, found by `open_source`."""

import pickle
import shutil

import pytest

from infdiff.data import sources
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import FolderSource, LMDBSource, Source, ZipSource, open_source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError


class ListSource(Source):
    """A text file that lists image files."""

    kind = "a list"

    @staticmethod
    def accepts(path):
        return path.suffix == ".txt"

    @classmethod
    def open(cls, path):
        return cls(str(path), tuple(path.read_text().split()))

    def read(self, name):
        with open(name, "rb") as file:
            return file.read()


def test_another_format_is_one_class(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", (ListSource, *sources.SOURCES))
    files = sorted(photos.glob("*.png"))[:3]
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    source = open_source(tmp_path / "list.txt")
    prepare(source, tmp_path / "out.lmdb", Recipe(size=(8, 8)), progress=False)
    assert len(ImageStore(tmp_path / "out.lmdb")) == 3
    with pytest.raises(UserError, match="a list, or"):
        open_source(tmp_path / "nothing")


def test_each_kind_is_told_from_the_others(photos, tmp_path):
    prepare(open_source(photos), tmp_path / "d.lmdb", Recipe(size=(8, 8)), progress=False)
    (tmp_path / "lsun").mkdir()
    shutil.copy(tmp_path / "d.lmdb", tmp_path / "lsun" / "data.mdb")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    kinds = {photos: FolderSource, archive: ZipSource, tmp_path / "d.lmdb": LMDBSource, tmp_path / "lsun": LMDBSource}
    for path, kind in kinds.items():
        source = open_source(path)
        assert type(source) is kind
        assert len(source.names) == 12
        again = pickle.loads(pickle.dumps(source))
        assert again.read(again.names[5]) == source.read(source.names[5])

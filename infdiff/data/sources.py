"""Sources of images to prepare: a folder, a zip, or an LMDB of encoded images (LSUN).

To read another format, write a class like those below and name it in `SOURCES`.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

import lmdb

from infdiff.data.lmdb_files import read_keys, read_value
from infdiff.errors import UserError, first_line

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".npy", ".npz"}
# Bytes of one encoded image; more is an attack on memory.
_LARGEST = 1 << 30
# Damage, encryption (RuntimeError), unknown compression, and what decompressors raise.
_BAD_ARCHIVE = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, EOFError, KeyError)


@dataclass(frozen=True)
class Source(ABC):
    """Named images in a fixed order. Sources are pickled and sent to worker processes."""

    kind: ClassVar[str]  # in error messages

    path: str
    names: tuple[str, ...]

    @staticmethod
    @abstractmethod
    def accepts(path: Path) -> bool:
        """Return True if the path looks like a source of this kind. Earlier kinds of `SOURCES` are asked first."""

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Self:
        """List the images. Raises UserError when the path cannot be read."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the encoded image. Raises OSError or ValueError for one that cannot be read: it is left out."""


class FolderSource(Source):
    """The image files of a folder and its subfolders."""

    kind = "a folder of images"

    @staticmethod
    def accepts(path: Path) -> bool:
        return path.is_dir()

    @classmethod
    def open(cls, path: Path) -> Self:
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        return cls(str(path), tuple(str(p.relative_to(path)) for p in found))

    def read(self, name: str) -> bytes:
        path = Path(self.path) / name
        if (size := path.stat().st_size) > _LARGEST:
            raise ValueError(f"it has {size} bytes, more than {_LARGEST}")
        return path.read_bytes()


class ZipSource(Source):
    """The image files of a zip archive."""

    kind = "a zip"

    @staticmethod
    def accepts(path: Path) -> bool:
        return zipfile.is_zipfile(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, *_BAD_ARCHIVE) as error:
            raise UserError(f"cannot read {path} as a zip: {first_line(error)}") from error
        with archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
        for name in names:
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise UserError(f"{path} holds an entry that points outside the archive ({name}): not touched")
        return cls(str(path), tuple(n for n in names if PurePosixPath(n).suffix.lower() in _SUFFIXES))

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive:
            try:
                # No more than this is unpacked, whatever the data say.
                if (size := archive.getinfo(name).file_size) > _LARGEST:
                    raise ValueError(f"it unpacks to {size} bytes, more than {_LARGEST}")
                return archive.read(name)
            except _BAD_ARCHIVE as error:
                raise ValueError(first_line(error)) from error


class LMDBSource(Source):
    """The values of an LMDB, a file or a folder as LSUN's; names are the keys in hexadecimal."""

    kind = "an LMDB"

    @staticmethod
    def accepts(path: Path) -> bool:
        return path.is_file() or (path / "data.mdb").exists()

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            keys = tuple(key.hex() for key in read_keys(path) if not key.startswith(b"infdiff-"))
        except lmdb.Error as error:
            raise UserError(f"{path} is neither {', nor '.join(source.kind for source in SOURCES)}") from error
        return cls(str(path), keys)

    def read(self, name: str) -> bytes:
        value = read_value(self.path, bytes.fromhex(name))
        if value is None:
            raise UserError(f"{self.path} has changed: entry {name} is missing")
        return value


# In this order, because an LMDB can be any file but a zip, and a folder, too.
SOURCES: tuple[type[Source], ...] = (ZipSource, LMDBSource, FolderSource)


def open_source(path: str | Path) -> Source:
    """Find the images at a path, with the first kind of `SOURCES` that accepts it.

    Raises UserError when there is nothing at the path, nothing in it, or an archive's entry points outside it.
    """
    path = Path(path)
    kind = next((kind for kind in SOURCES if kind.accepts(path)), None)
    if kind is None:
        raise UserError(f"nothing at {path}: give {', or '.join(kind.kind for kind in SOURCES)}")
    source = kind.open(path)
    if not source.names:
        raise UserError(f"no images in {path}: looked for {', '.join(sorted(_SUFFIXES))}")
    return source

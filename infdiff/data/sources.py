"""Where images come from: a folder, a zip, or an LMDB of encoded images (LSUN)."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import lmdb

from infdiff.data.lmdb_files import read_transaction
from infdiff.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Source:
    """Named images in a fixed order; `read` gives the bytes of one. Safe to send to other processes."""

    kind: str
    path: str
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        if self.kind == "folder":
            return (Path(self.path) / name).read_bytes()
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        with read_transaction(self.path) as transaction:
            return bytes(transaction.get(bytes.fromhex(name)))


def open_source(path: str | Path) -> Source:
    """Find the images of a folder (recursively), a zip or an LMDB.

    Raises UserError when there is nothing at the path, nothing in it, or an archive's entry points outside it.
    """
    path = Path(path)
    if path.is_dir() and (path / "data.mdb").exists():
        source = _lmdb_source(path)
    elif path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        source = Source("folder", str(path), tuple(str(p.relative_to(path)) for p in found))
    elif zipfile.is_zipfile(path):
        source = _zip_source(path)
    elif path.is_file():
        source = _lmdb_source(path)
    else:
        raise UserError(f"nothing at {path}: give a folder of images, a zip, or an LMDB")
    if not source.names:
        raise UserError(f"no images in {path}: looked for {', '.join(sorted(_SUFFIXES))}")
    return source


def _zip_source(path: Path) -> Source:
    with zipfile.ZipFile(path) as archive:
        names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise UserError(f"{path} holds an entry that points outside the archive ({name}): not touched")
    return Source("zip", str(path), tuple(n for n in names if PurePosixPath(n).suffix.lower() in _SUFFIXES))


def _lmdb_source(path: Path) -> Source:
    try:
        with read_transaction(path) as transaction:
            keys = tuple(key.hex() for key, _ in transaction.cursor() if not key.startswith(b"infdiff-"))
    except lmdb.Error as error:
        raise UserError(f"{path} is neither a folder, nor a zip, nor an LMDB") from error
    return Source("lmdb", str(path), keys)

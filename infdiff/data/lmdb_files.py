"""Reading LMDB files: one environment a file and process, opened at first use, never carried across a fork."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

# Before the key that a checksum is of.
CHECKSUM = b"infdiff-crc32-"

_open: dict[tuple[int, int], lmdb.Environment] = {}


def read_value(path: str | Path, key: bytes) -> bytes | None:
    """Return the value of a key in an LMDB file, or in a folder that holds one (LSUN); None if there is no such key.

    Takes no lock, so a read-only medium will do. Raises lmdb.Error when the file is no LMDB.
    """
    with _environment(path).begin() as transaction:
        value = transaction.get(key)
    return None if value is None else bytes(value)


def put_checked(transaction: lmdb.Transaction, key: bytes, value: bytes) -> None:
    """Store a value, and its checksum next to it."""
    transaction.put(key, value)
    transaction.put(CHECKSUM + key, _checksum(value))


def read_checked(path: str | Path, key: bytes) -> bytes | None:
    """Return a value as `read_value` does. Raises ValueError when it is not what `put_checked` stored.

    A value without a checksum, of an earlier version, is taken as it is.
    """
    with _environment(path).begin() as transaction:
        value, stored = transaction.get(key), transaction.get(CHECKSUM + key)
        if value is None:
            return None
        found = bytes(value)
    if stored is not None and bytes(stored) != _checksum(found):
        raise ValueError("its checksum is not that of its content")
    return found


def count_entries(path: str | Path) -> int:
    """Return the number of keys. Raises lmdb.Error when the file is no LMDB."""
    return int(_environment(path).stat()["entries"])


@contextmanager
def view_value(path: str | Path, key: bytes) -> Iterator[memoryview | None]:
    """Provide the value of a key as a view, valid inside the context: of the file, only what is touched is read.

    None if there is no such key. Raises lmdb.Error when the file is no LMDB.
    """
    with _environment(path).begin(buffers=True) as transaction:
        yield transaction.get(key)


def read_keys(path: str | Path) -> list[bytes]:
    """Return all keys in their order. Raises lmdb.Error when the file is no LMDB."""
    with _environment(path).begin() as transaction:
        return [bytes(key) for key in transaction.cursor().iternext(values=False)]


def _environment(path: str | Path) -> lmdb.Environment:
    status = os.stat(path)
    # LMDB refuses to open a file twice in a process; a file that replaced another is another file.
    key = status.st_dev, status.st_ino
    if key not in _open:
        subdir = Path(path).is_dir()
        environment = lmdb.open(str(path), subdir=subdir, readonly=True, lock=False, readahead=False)
        try:
            _require_complete(environment, Path(path) / "data.mdb" if subdir else Path(path))
        except lmdb.Error:
            environment.close()
            raise
        _open[key] = environment
    return _open[key]


def _require_complete(environment: lmdb.Environment, file: Path) -> None:
    """Raise lmdb.CorruptedError for a file that is cut off: reading beyond its end would kill the process (SIGBUS)."""
    pages, size = environment.info()["last_pgno"] + 1, file.stat().st_size
    if size < pages * environment.stat()["psize"]:
        raise lmdb.CorruptedError(f"it is cut off after {size} bytes of {pages * environment.stat()['psize']}")


def _close_all() -> None:
    while _open:
        _open.popitem()[1].close()


# A forked child must not touch its parent's environments: both open their own again when they next read.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)


def _checksum(value: bytes) -> bytes:
    return zlib.crc32(value).to_bytes(4, "big")

"""Reading LMDB files: one environment a file and process, opened at first use, never carried across a fork."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

_open: dict[tuple[int, int], lmdb.Environment] = {}


def read_value(path: str | Path, key: bytes) -> bytes | None:
    """Return the value of a key in an LMDB file, or in a folder that holds one (LSUN); None if there is no such key.

    Takes no lock, so a read-only medium will do. Raises lmdb.Error when the file is no LMDB.
    """
    with _environment(path).begin() as transaction:
        value = transaction.get(key)
    return None if value is None else bytes(value)


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
        _open[key] = lmdb.open(str(path), subdir=subdir, readonly=True, lock=False, readahead=False)
    return _open[key]


def _close_all() -> None:
    while _open:
        _open.popitem()[1].close()


# A forked child must not touch its parent's environments: both open their own again when they next read.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)

"""LMDB environments for reading: one a file and process, opened at first use, never carried across a fork."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

_open: dict[tuple[int, int], lmdb.Environment] = {}


def read_transaction(path: str | Path) -> lmdb.Transaction:
    """A read-only transaction on an LMDB file, or on a folder that holds one (LSUN).

    Takes no lock, so a read-only medium will do. Raises lmdb.Error when the file is no LMDB.
    """
    status = os.stat(path)
    # LMDB refuses to open a file twice in a process; a file that replaced another is another file.
    key = status.st_dev, status.st_ino
    if key not in _open:
        subdir = Path(path).is_dir()
        _open[key] = lmdb.open(str(path), subdir=subdir, readonly=True, lock=False, readahead=False)
    return _open[key].begin()


def _close_all() -> None:
    while _open:
        _open.popitem()[1].close()


# A forked child must not touch its parent's environments: both open their own again when they next read.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)

"""One owner for a run directory: a training holds a lock there that ends with its process, however that ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infdiff import processes
from infdiff.errors import UserError
from infdiff.files import locked, make_folder, writing

LOCK = "owner.lock"

Say = Callable[[str], object]


@contextmanager
def owning(folder: Path, *, force: bool, say: Say) -> Iterator[None]:
    """Own a directory, which is made if need be, during the block. Reading from it needs no owner.

    force: go on where another process owns it. say: given a line about that, and about a file system without locks.
    Raises UserError naming the owner's host and process.
    """
    if not processes.joined().first:
        yield  # the first one owns it for all
        return
    path = make_folder(folder) / LOCK
    with writing(path):
        holder = locked(path)
        ours = holder.__enter__()
    try:
        if ours is None:
            say(f"note: {folder} is on a file system without locks: start no second training there")
        elif ours:
            with writing(path):
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        else:
            owner = _owner(path)
            if not force:
                raise UserError(
                    f"{folder}: {owner} is training there: wait for it, stop it, or choose another folder (--out); "
                    "--force trains all the same, and each spoils the other's log and checkpoints"
                )
            say(f"warning: --force: {owner} is training in {folder}, too: log and checkpoints of both are in danger")
        yield
    finally:
        holder.__exit__(None, None, None)


def _owner(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        if text := path.read_text().strip():
            return text
    return "another process"

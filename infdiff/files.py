"""Atomic writing: a file appears complete or not at all, and failures are one line."""

from __future__ import annotations

import glob
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infdiff.errors import UserError

try:
    import fcntl
except ImportError:  # not there on Windows
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".partial"
_LOCK = "writer.lock"  # in a partial folder
# File systems allow names of 255 bytes, and a partial file's name is longer than its target's.
_LONGEST_NAME = 48


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a partial path to write to, in the same folder. On success it is flushed and renamed to `path`.

    An existing file stays as it was until then, and on any failure the partial file is removed. Each call has a path of
    its own, so that several processes can write one file: the last one wins. A symbolic link is followed. Raises
    UserError for an OSError, and for a target that exists and is not a regular file.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise UserError(f"cannot write {path}: it is not a regular file")
        partial = target.with_name(f".{target.name[:_LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
        try:
            with locked(partial):  # says that its writer lives: see `clean_partials`
                yield partial
                flush(partial)
                partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a partial folder to fill, next to `path`. On success it is flushed and renamed to `path`.

    A folder that is there stays as it was until then, and on any failure the partial one is removed. Raises UserError
    for an OSError.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        own = f".{target.name[:_LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}"
        partial, earlier = (target.with_name(f"{own}{end}{_SUFFIX}") for end in ("", "-earlier"))
        try:
            partial.mkdir()
            with locked(partial / _LOCK):  # says that its writer lives: see `clean_partials`
                yield partial
                (partial / _LOCK).unlink()
                for written in (*partial.iterdir(), partial):
                    flush(written)
                if target.exists():
                    target.rename(earlier)
                partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError, `cannot write PATH: the reason`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, and return it. Raises UserError when it cannot be created."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def cache_folder() -> Path:
    """The folder of what is costly to make again: machine code, features of data sets, prepared images."""
    if own := os.environ.get("INFDIFF_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "infdiff"
    try:
        return Path.home() / ".cache" / "infdiff"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"infdiff-{os.getuid()}"


def is_empty(folder: Path) -> bool:
    """Return True if a folder holds nothing but partial files, which a killed process may have left."""
    return all(is_partial(entry) for entry in folder.iterdir())


def is_partial(path: Path) -> bool:
    """Return True for a partial file of `whole_file`."""
    return path.name.endswith(_SUFFIX)


def clean_partials(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of files with this name in a folder; with no name, of all files in it.

    Of folders with this name, too.
    """
    pattern = f".{glob.escape(name[:_LONGEST_NAME])}.*{_SUFFIX}" if name else f".*{_SUFFIX}"
    for partial in folder.glob(pattern):
        # A living writer holds the lock; without locks nobody knows, and the file stays.
        is_folder = partial.is_dir()
        with suppress(OSError), locked(partial / _LOCK if is_folder else partial, create=is_folder) as ours:
            if ours and is_folder:
                shutil.rmtree(partial)
            elif ours:
                partial.unlink()


@contextmanager
def locked(path: Path, *, create: bool = True) -> Iterator[bool | None]:
    """Hold the advisory lock of a file during the block; it ends with the process, however that ends.

    Yields True, False when another process holds it, and None where the file system has no locks. create: the file, if
    it is not there. Raises OSError when it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, atomically."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)


def save_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically. What is left of file names in another encoding is written as \\udcff."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically. Non-finite numbers, which JSON lacks, become null."""
    save_text(path, json.dumps(_finite(content), indent=1) + "\n")


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

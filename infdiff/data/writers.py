"""Writing a store: entries that processes make go into one LMDB file, or each process writes shards of its own."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import lmdb

from infdiff.data.label_files import SourceLabels
from infdiff.data.lmdb_files import put_checked
from infdiff.data.shards import shard_files, shard_name
from infdiff.data.store import Header, entry_key, header_entry, label_entry
from infdiff.errors import OptionError, UserError
from infdiff.files import clean_partials, make_folder, whole_file, whole_folder

_BATCH = 64
# Images that a process is given at a time, and times that are given out beforehand.
_CHUNK, _AHEAD = 4, 8
_MOST_SHARDS = 10_000


class HasEntries(Protocol):
    """A dataclass with what a source's image becomes in the store: none, one or several entries."""

    @property
    def entries(self) -> list[bytes]: ...


Made = TypeVar("Made", bound=HasEntries)
_Made = TypeVar("_Made")


class Writer(Protocol):
    """Writes a store."""

    def write(self, make: Callable[[int], Made], count: int, workers: int) -> Iterator[Made]:
        """Write the entries of make(0), ..., make(count - 1), in this order, and yield what was made."""

    def finish(self, header: Header, labels: SourceLabels | None, used: Sequence[str]) -> None:
        """Write labels and header. used: the name of the source image of each entry."""


@contextmanager
def new_store(out: str | Path, shards: int = 0, count: int = 0) -> Iterator[Writer]:
    """Yield what writes a store; it appears at `out` when the block ends, complete, or not at all.

    shards: a folder of them, made from `count` images; 0: one file. Raises UserError for a path that is taken by
    something else, and for one that cannot be written.
    """
    out = Path(out)
    if shards and not 0 < shards <= min(count, _MOST_SHARDS):
        raise OptionError("shards", shards, f"want 1 to {min(count, _MOST_SHARDS)}, at most one for each of the images")
    if shards and out.exists() and not shard_files(out):
        raise UserError(f"{out} is there, and no folder of shards: name another, or remove it")
    if not shards and out.is_dir():
        raise UserError(f"{out} is a folder: name a file, such as data.lmdb")
    try:
        clean_partials(make_folder(out.parent), out.name)
        if shards:
            with whole_folder(out) as folder:
                yield ShardWriter(folder, shards)
        else:
            with whole_file(out) as partial_file:
                yield StoreWriter(partial_file)
    except (OSError, lmdb.Error) as error:
        raise UserError(f"cannot write {out}: {error}") from error


class StoreWriter:
    """Writes entries in batches into an LMDB whose map grows as it fills."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.map_size = 1 << 26
        self.environment = lmdb.open(str(path), subdir=False, map_size=self.map_size, lock=False, sync=False)
        self.pending: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.pending.append((key, value))
        if len(self.pending) >= _BATCH:
            self._commit()

    def write(self, make: Callable[[int], Made], count: int, workers: int) -> Iterator[Made]:
        """Write the entries of make(0), ..., make(count - 1), in this order, and yield what was made."""
        number = itertools.count()
        for made in in_processes(make, count, workers):
            for entry in made.entries:
                self.put(entry_key(next(number)), entry)
            yield made

    def finish(self, header: Header, labels: SourceLabels | None, used: Sequence[str]) -> None:
        """Write labels and header. used: the name of the source image of each entry."""
        described = None if labels is None else labels.description(used).record()
        self.put_last(replace(header, labels=described), labels, used)
        self.close()

    def put_last(self, header: Header, labels: SourceLabels | None, used: Sequence[str]) -> None:
        """Write the label of each entry, and a header that says what labels mean."""
        if labels is not None:
            for number, name in enumerate(used):
                self.put(*label_entry(number, labels.values[name]))
        self.put(*header_entry(header))

    def close(self) -> None:
        self._commit()
        self.environment.sync(True)
        self.environment.close()

    def _commit(self) -> None:
        size = sum(len(value) + 8192 for _, value in self.pending)
        if shutil.disk_usage(self.folder).free < size:
            raise OSError("no space left on the device")
        while True:
            try:
                with self.environment.begin(write=True) as transaction:
                    for key, value in self.pending:
                        put_checked(transaction, key, value)
                break
            except lmdb.MapFullError:
                self.map_size *= 2
                self.environment.set_mapsize(self.map_size)
        self.pending = []


class ShardWriter:
    """Writes shards of equally many images of the source, one after another; each process writes complete ones."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.files = [folder / shard_name(number, shards) for number in range(shards)]
        self.counts: list[int] = []
        self.digest = hashlib.blake2b(digest_size=8)

    def write(self, make: Callable[[int], Made], count: int, workers: int) -> Iterator[Made]:
        """Write them as `Writer.write` does; what is yielded has empty entries."""
        shards = len(self.files)
        parts = [range(count * n // shards, count * (n + 1) // shards) for n in range(shards)]
        write = partial(_write_shard, make, self.files, parts)
        for made, digest in in_processes(write, shards, min(workers, shards), chunk=1):
            self.digest.update(digest)
            self.counts.append(sum(len(one.entries) for one in made))
            yield from made

    def finish(self, header: Header, labels: SourceLabels | None, used: Sequence[str]) -> None:
        """Write labels and header of each shard. used: the name of the source image of each entry of all of them."""
        described = None if labels is None else labels.description(used).record()
        names, start = self.digest.hexdigest(), 0
        for number, (file, count) in enumerate(zip(self.files, self.counts, strict=True)):
            own = replace(header, count=count, labels=described, shard=[number, len(self.files), names])
            writer = StoreWriter(file)
            writer.put_last(own, labels, used[start : start + count])
            writer.close()
            start += count


def _write_shard(
    make: Callable[[int], Made], files: Sequence[Path], parts: Sequence[range], shard: int
) -> tuple[list[Made], bytes]:
    """Write the entries of a shard. Returns what was made, with empty entries, and a digest of their content."""
    found, digest = [], hashlib.blake2b(digest_size=8)
    try:
        writer, own = StoreWriter(files[shard]), parts[shard]
        for made in writer.write(lambda number: make(own.start + number), len(own), 0):
            for entry in made.entries:
                digest.update(hashlib.blake2b(entry).digest())
            found.append(replace(made, entries=[b""] * len(made.entries)))  # type: ignore[type-var]
        writer.close()
    except lmdb.Error as error:  # which does not come through to another process
        raise OSError(str(error)) from error
    return found, digest.digest()


def in_processes(convert: Callable[[int], _Made], count: int, workers: int, chunk: int = _CHUNK) -> Iterator[_Made]:
    """Yield convert(i) for i in 0..count-1, in this order, made by worker processes, or by none.

    chunk: numbers that a process is given at a time. Raises UserError when a process was killed.
    """
    if workers <= 1:
        yield from map(convert, range(count))
        return
    # Fresh processes: a fork would copy locks held by the parent's threads. A Pool would wait for ever for the work of
    # a process that was killed.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        running: deque[Future[list[_Made]]] = deque()
        for start in range(0, count, chunk):
            running.append(pool.submit(_all_of, convert, range(start, min(count, start + chunk))))
            if len(running) > _AHEAD * workers:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    except BrokenProcessPool as error:
        raise UserError("a process that prepares images was killed, perhaps for its memory: try --workers 1") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _all_of(convert: Callable[[int], _Made], numbers: Sequence[int]) -> list[_Made]:
    return [convert(number) for number in numbers]

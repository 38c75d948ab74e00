"""A folder of shards: the files of one data set, each written by a process of its own, and their names."""

from __future__ import annotations

import re
from pathlib import Path

from infdiff.errors import UserError

_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.lmdb")


def shard_name(number: int, count: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}-of-{count:05d}.lmdb"


def shard_files(path: str | Path) -> list[Path]:
    """Return the shards in a folder, in their order; none where it holds none, or is a file.

    Raises UserError naming the first that is missing, and for shards of several sets.
    """
    folder = Path(path)
    if not folder.is_dir():
        return []
    found = [match for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
    counts = sorted({int(match[2]) for match in found})
    if len(counts) > 1:
        raise UserError(f"{path} holds shards of {len(counts)} data sets, of {counts[0]} and of {counts[1]} shards")
    files = [folder / shard_name(number, count) for count in counts for number in range(count)]
    for file in files:
        if not file.exists():
            raise UserError(f"{file} is missing: copy it there, or prepare the data set again")
    return files

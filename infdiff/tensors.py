"""Tensors in safetensors files that carry a checksum: a flipped bit is an error, not another picture."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from infdiff.errors import first_line
from infdiff.files import whole_file

_CHECKSUM = "crc32"


class DamagedFileError(ValueError):
    """A file of ours is cut off or changed. The message is the reason, in one line, without the file's name."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, with a checksum of all that `read_tensors` returns.

    Raises UserError when the file cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = dict(metadata or {})
    about[_CHECKSUM] = _checksum(contiguous, about)
    with whole_file(path) as partial:
        # The library's own save_file writes to a temporary file of another name, which a killed process leaves behind.
        partial.write_bytes(_in_order(safetensors.torch.save(contiguous, about)))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The same without a second copy in memory, and not atomically: for folders that are renamed when complete.

    Raises OSError or SafetensorError.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, path, {_CHECKSUM: _checksum(contiguous, {})})


def read_tensors(path: Path, names: Sequence[str] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, on the CPU, and its metadata. Files of earlier versions carry no checksum.

    names: tensors that must be there. Raises OSError when there is no file to read, and DamagedFileError when its
    content is not what was written.
    """
    path.stat()  # for an OSError that says what is wrong
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except safetensors.SafetensorError as error:
        raise DamagedFileError(first_line(error)) from error
    stored = about.pop(_CHECKSUM, None)
    if stored is not None and stored != _checksum(tensors, about):
        raise DamagedFileError("its checksum is not that of its content")
    missing = [name for name in names if name not in tensors]
    if missing:
        raise DamagedFileError(f"it holds no tensor {missing[0]}")
    return tensors, about


def _in_order(content: bytes) -> bytes:
    """Sort the metadata in a file: the library writes them in another order every time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of names, types, shapes, values and metadata."""
    crc = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode(), crc)
        values: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(values, crc)
    return f"{crc:08x}"

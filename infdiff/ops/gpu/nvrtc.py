"""CUDA sources -> machine code for one architecture, through NVRTC, cached on disk. Knows nothing of torch.

The cache is the folder kernels/ in `$INFDIFF_CACHE`, else `$XDG_CACHE_HOME/infdiff`, else `~/.cache/infdiff`. A file's
name is a hash of everything its content depends on. Several processes may compile the same kernel at once: a file that
appears is complete. Machine code is run as it is, so the folder and its files are private: what another user owns, or
may write to, is not read, and nothing is kept there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from infdiff.errors import UserError, first_line
from infdiff.files import cache_folder, make_folder, whole_file

# In a wheel the sources lie inside the package, in a checkout next to it.
_PACKAGE = Path(__file__).resolve().parents[2]
SOURCES = _PACKAGE / "cuda" if (_PACKAGE / "cuda").is_dir() else _PACKAGE.parent / "cuda"

_DIGEST_BYTES = 32
_PARAMETER_KINDS = ("int64", "int", "float", "double")


class CompileError(RuntimeError):
    """NVRTC is missing, or rejected a source."""


@cache
def read_source(name: str) -> str:
    """The text of cuda/NAME with the headers it includes put in, each once."""
    return _inlined((SOURCES / name).read_text(), set())


def _inlined(text: str, seen: set[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        header = match[1]
        if header in seen:
            return ""
        seen.add(header)
        return _inlined((SOURCES / header).read_text(), seen)

    return re.sub(r'^#include "([^"]+)"$', replace, text.replace("#pragma once", ""), flags=re.MULTILINE)


@cache
def parameters(source: str, entry: str) -> tuple[str, ...]:
    """The kinds of a kernel's parameters in order: "pointer", "int", "int64", "float" or "double"."""
    match = re.search(rf"\b__global__\b[^;{{}}]*?\b{entry}\(([^)]*)\)\s*{{", read_source(source))
    if match is None:
        raise KeyError(f"no kernel {entry} in {source}")
    kinds = []
    for declaration in match[1].split(","):
        words = declaration.replace("*", " * ").split()
        kind = "pointer" if "*" in words else words[0]
        if kind != "pointer" and kind not in _PARAMETER_KINDS:
            raise KeyError(f"parameter {declaration.strip()!r} of {entry} in {source} is of no known kind")
        kinds.append(kind)
    return tuple(kinds)


def compiler_versions() -> str:
    """Versions of the compiler's parts. Raises CompileError saying what to install when one is missing."""
    try:
        core = version("cuda-core")
    except PackageNotFoundError:
        raise CompileError("the package cuda-core is not installed: pip install 'infdiff[cuda]'") from None
    try:
        from cuda.bindings import nvrtc

        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as problem:
        raise CompileError(f"NVRTC cannot be loaded ({first_line(problem)}): pip install 'infdiff[cuda]'") from None
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC does not answer: {error.name}")
    try:
        from cuda.core import Device, LaunchConfig, ObjectCode, Program, ProgramOptions, launch  # noqa: F401
    except ImportError as problem:
        advice = "pip install --upgrade 'cuda-core>=1.0'"
        raise CompileError(f"cuda-core {core} cannot be used ({first_line(problem)}): {advice}") from None
    return f"cuda-core {core}, NVRTC {major}.{minor}"


def compiler_major() -> int | None:
    """Major version of NVRTC; None where it is missing."""
    try:
        return int(compiler_versions().rpartition(" ")[2].split(".")[0])
    except CompileError:
        return None


def driver_version() -> int | None:
    """Version of CUDA that the driver is for, as 12040 for 12.4; None without a driver."""
    try:
        from cuda.bindings import driver

        error, number = driver.cuDriverGetVersion()
    except Exception:  # no package, or one that finds no driver; PyTorch's own function is in its CUDA builds alone
        error, number = 0, getattr(torch._C, "_cuda_getDriverVersion", int)()
    return number if int(error) == 0 and number else None


def machine_code(source: str, defines: Mapping[str, int], architecture: str) -> bytes:
    """cuda/SOURCE compiled for an architecture such as "sm_90", from the disk if it is there.

    Corrupt cache files are recompiled; an unwritable cache is ignored, and so is one that is not private, with a
    warning. Raises CompileError with NVRTC's first error.
    """
    text = read_source(source)
    settings = sorted(defines.items())
    versions = compiler_versions(), driver_version()
    key = hashlib.sha256(repr((text, settings, architecture, versions)).encode()).hexdigest()
    folder = _private_folder(cache_folder() / "kernels")
    if folder is None:
        return _compile(text, source, settings, architecture)
    place = folder / f"{key}.cubin"
    code = _read(place)
    if code is None:
        code = _compile(text, source, settings, architecture)
        _write(place, code)
    return code


def _compile(text: str, name: str, settings: list[tuple[str, int]], architecture: str) -> bytes:
    from cuda.core import Program, ProgramOptions

    macros = [(key, str(value)) for key, value in settings]
    options = ProgramOptions(name=name, arch=architecture, std="c++17", define_macro=macros or None)
    try:
        return bytes(Program(text, "c++", options).compile("cubin").code)
    except Exception as problem:  # each release of cuda-core has its own classes
        raise CompileError(f"NVRTC refused {name} for {architecture}: {_complaint(problem)}") from problem


def _complaint(problem: Exception) -> str:
    """The compiler's first line with "error" in it, else the first line at all."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else type(problem).__name__)


def _private_folder(folder: Path) -> Path | None:
    """Return the folder, made if need be; None where there can be none, or another user may write into it."""
    try:
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except (OSError, UserError):
        return None
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        _distrust(folder)
        return None
    return folder


def _is_private(status: os.stat_result) -> bool:
    """True for what belongs to this user and can be written by no other. Windows keeps a user's folders private."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


@cache
def _distrust(path: Path) -> None:
    warnings.warn(
        f"{path} belongs to another user or can be written by others: kernels are compiled without it", stacklevel=2
    )


def _read(place: Path) -> bytes | None:
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not _is_private(os.fstat(descriptor)):
            _distrust(place)
            return None
        content = file.read()
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(place: Path, code: bytes) -> None:
    with suppress(UserError), whole_file(place) as partial:
        partial.chmod(0o600)
        partial.write_bytes(hashlib.sha256(code).digest() + code)

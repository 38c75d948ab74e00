"""Runs the CUDA kernels on the CPU: compiles a source of cuda/ with g++ and tests/cuda/emulator.h.

`launch` has the signature of `infdiff.ops.gpu.launch.launch` and takes tensors in CPU memory, so that the kernels and
the host's side of them run as they are, without a GPU. Slow: for tests at small sizes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from infdiff.ops.gpu.launch import THREADS, c_values
from infdiff.ops.gpu.nvrtc import parameters, read_source

EMULATOR = Path(__file__).resolve().parent / "emulator.h"

# No unique symbols: the loader would give all libraries the shared memory of the first one, whatever its size.
_FLAGS = ["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fno-gnu-unique", "-shared", "-fPIC"]


def why_not() -> str | None:
    return None if shutil.which("g++") else "g++ is not installed"


class Emulator:
    """Compiled kernels, kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launched: set[str] = set()
        self._library = cache(self._build)

    def launch(self, source, entry, defines, grid, arguments, shared=0):
        self.launched.add(entry)
        kinds = parameters(source, entry)
        library = self._library(source, tuple(sorted(defines.items())))
        values = [
            ctypes.c_void_p(v) if k == "pointer" else v for k, v in zip(kinds, c_values(kinds, arguments), strict=True)
        ]
        assert all(size > 0 for size in grid)
        getattr(library, f"launch_{entry}")(*grid, *values)

    def _build(self, source, defines):
        text = read_source(source)
        entries = re.findall(
            r'extern "C" __global__[^;{}]*?(\w+)\(([^)]*)\)\s*{', text.replace("__launch_bounds__(THREADS)", "")
        )
        wrappers = []
        for entry, declarations in entries:
            names = [d.split()[-1].lstrip("*") for d in declarations.split(",")]
            wrappers.append(
                f'extern "C" void launch_{entry}(unsigned gx, unsigned gy, unsigned gz, {declarations}) {{ '
                f"emulate({{gx, gy, gz}}, {{{THREADS}, 1, 1}}, [=] {{ {entry}({', '.join(names)}); }}); }}"
            )
        text = "\n".join([*(f"#define {key} {value}" for key, value in defines), text, *wrappers])
        return self.build(text)

    def build(self, text):
        """A library of C++ text that comes after the emulator's header."""
        program = f'#include "{self._header()}"\n{text}'
        name = hashlib.sha256((program + EMULATOR.read_text()).encode()).hexdigest()[:20]
        place = self.folder / f"{name}.so"
        if not place.exists():
            file = self.folder / f"{name}.{os.getpid()}.cpp"
            file.write_text(program)
            self._compile(place, file)
        return ctypes.CDLL(str(place))

    def _header(self):
        """The emulator's header in the folder, compiled beside it, where g++ finds it: half of each compilation."""
        header = self.folder / EMULATOR.name
        if not (compiled := header.with_suffix(".h.gch")).exists():
            own = self.folder / f"{os.getpid()}.{EMULATOR.name}"
            shutil.copyfile(EMULATOR, own)
            own.rename(header)
            self._compile(compiled, "-x", "c++-header", header)
        return header

    def _compile(self, place, *arguments):
        """Run g++; nobody sees half a file, and of several processes the last one wins."""
        partial = place.with_name(f"{os.getpid()}.{place.name}")
        result = subprocess.run(["g++", *_FLAGS, *arguments, "-o", partial], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        partial.rename(place)

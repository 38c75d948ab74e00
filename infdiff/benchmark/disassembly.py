"""Registers, spills, shared memory, instructions and loops of a compiled kernel, read without a GPU.

The compiler says what a kernel needs. Instructions and loops need `nvdisasm`, of the CUDA toolkit or of the package
nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from infdiff.ops.gpu.nvrtc import CompileError, compiler_versions, read_source

NO_DISASSEMBLER = "nvdisasm is not there, so no instructions are counted: pip install nvidia-cuda-nvdisasm"

_USED = re.compile(
    r"Function properties for (?P<entry>\w+)\n.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers(?P<others>[^\n]*)"
)
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<code>[A-Z][\w.]*)(?P<operands>[^;]*);")
_LINE = re.compile(r'//## File "[^"]*", line (\d+)')
_LABEL = re.compile(r"^(\.L_x_\d+):")


class Needs(NamedTuple):
    """The compiler's words on a kernel: registers of a thread, bytes spilled by it, bytes of a block's memory."""

    registers: int
    spilled: int
    shared: int


@dataclass(frozen=True)
class Instruction:
    """One machine instruction. lines: the source lines that it comes from, the innermost of inlined functions first."""

    code: str
    guarded: bool
    operands: str
    lines: tuple[str, ...]


@dataclass
class Block:
    """Instructions that run one after the other, and the numbers of the blocks that can follow."""

    instructions: list[Instruction]
    next: list[int] = field(default_factory=list)


class Loop(NamedTuple):
    """A loop: the numbers of its first block and of all, and the source lines of the jump back."""

    first: int
    blocks: frozenset[int]
    lines: tuple[str, ...]


class Compiled(NamedTuple):
    """A source compiled for an architecture: the machine code, its text, and what each kernel needs."""

    code: bytes
    source: str
    needs: dict[str, Needs]


def compile_kernels(source: str, defines: Mapping[str, int], architecture: str) -> Compiled:
    """Compile cuda/SOURCE with line numbers. Raises CompileError as `nvrtc.machine_code` does."""
    compiler_versions()
    from cuda.core import Program, ProgramOptions

    text, log = read_source(source), io.StringIO()
    macros = [(key, str(value)) for key, value in defines.items()]
    options = ProgramOptions(
        name=source, arch=architecture, std="c++17", define_macro=macros or None, lineinfo=True, ptxas_options="-v"
    )
    try:
        code = bytes(Program(text, "c++", options).compile("cubin", logs=log).code)
    except Exception as problem:  # each release of cuda-core has its own classes
        first = (str(problem).splitlines() or ["?"])[0]
        raise CompileError(f"NVRTC refused {source} for {architecture}: {first}") from problem
    return Compiled(code, text, read_needs(log.getvalue()))


def read_needs(log: str) -> dict[str, Needs]:
    """Read the needs of each kernel from the compiler's words."""
    needs = {}
    for match in _USED.finditer(log):
        shared = re.search(r"(\d+) bytes smem", match["others"])
        spilled = int(match["stores"]) + int(match["loads"])
        needs[match["entry"]] = Needs(int(match["registers"]), spilled, int(shared[1]) if shared else 0)
    return needs


def find_disassembler() -> str | None:
    """Path of nvdisasm: on PATH, in $CUDA_HOME, or in its package."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    found = shutil.which("nvdisasm") or shutil.which("nvdisasm", path=f"{home}/bin")
    if found is None:
        try:
            files = distribution("nvidia-cuda-nvdisasm").files or []
        except PackageNotFoundError:
            return None
        found = next((str(Path(str(f.locate()))) for f in files if f.name == "nvdisasm"), None)
    return found


def disassemble(compiled: Compiled, disassembler: str) -> dict[str, list[Block]]:
    """The blocks of each kernel, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.code)
        command = [disassembler, "--print-line-info-inline", "--print-code", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(result.stdout, compiled.source)


def parse(text: str, source: str) -> dict[str, list[Block]]:
    """The blocks of each kernel in nvdisasm's text."""
    sections = re.split(r"^\.text\.(\w+):\n", text, flags=re.MULTILINE)
    lines = ["", *(line.strip() for line in source.splitlines())]
    return {
        name: _blocks(body.split("//------", 1)[0], lines)
        for name, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def _blocks(body: str, source: list[str]) -> list[Block]:
    """Split at labels and after jumps, then connect."""
    blocks, labels, fresh = [Block([])], dict[str, int](), True
    place: list[str] = []
    for text in body.splitlines():
        if line := _LINE.search(text):
            place, fresh = ([] if fresh else place) + [source[int(line[1])]], False
            continue
        fresh = True
        if label := _LABEL.match(text):
            if blocks[-1].instructions:
                blocks.append(Block([]))
            labels[label[1]] = len(blocks) - 1
        elif match := _INSTRUCTION.match(text):
            instruction = Instruction(match["code"], match["guard"] is not None, match["operands"], tuple(place))
            blocks[-1].instructions.append(instruction)
            if _jumps(instruction):
                blocks.append(Block([]))
    for number, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else None
        if last is not None and last.code.split(".")[0] == "BRA" and not last.code.startswith("BRA.DIV"):
            target = re.search(r"\.L_x_\d+", last.operands)
            if target:
                block.next.append(labels[target[0]])
        if number + 1 < len(blocks) and (last is None or not _ends(last)):
            block.next.append(number + 1)
    return blocks


def _jumps(instruction: Instruction) -> bool:
    return instruction.code.split(".")[0] in ("BRA", "EXIT", "RET")


def _ends(instruction: Instruction) -> bool:
    """True for a jump without a condition: nothing after it follows."""
    bare = re.fullmatch(r"\s*`\(\.L_x_\d+\)\s*", instruction.operands) is not None
    kind = instruction.code.split(".")[0]
    return not instruction.guarded and (kind in ("EXIT", "RET") or (instruction.code == "BRA" and bare))


def reachable(blocks: list[Block]) -> list[int]:
    """Numbers of the blocks that can run. Called functions are not among them, nor what only split warps need."""
    found, waiting = {0}, [0]
    while waiting:
        for following in blocks[waiting.pop()].next:
            if following not in found:
                found.add(following)
                waiting.append(following)
    return sorted(found)


def loops_of(blocks: list[Block]) -> list[Loop]:
    """The natural loops; those with one first block are one loop."""
    order = reachable(blocks)
    before: dict[int, list[int]] = {number: [] for number in order}
    for number in order:
        for following in blocks[number].next:
            before[following].append(number)
    above = _dominators(order, before)
    found: dict[int, tuple[set[int], tuple[str, ...]]] = {}
    for number in order:
        for first in blocks[number].next:
            if first not in above[number]:
                continue
            body, waiting = {first, number}, [number] if number != first else []
            while waiting:
                new = set(before[waiting.pop()]) - body
                body |= new
                waiting += new
            known, lines = found.get(first, (set(), ()))
            found[first] = known | body, lines + blocks[number].instructions[-1].lines
    return [Loop(first, frozenset(body), lines) for first, (body, lines) in found.items()]


def shares(blocks: list[Block], loops: list[Loop]) -> dict[int, float]:
    """The part of the turns of the loop around it in which each block runs, for blocks that can run.

    Of an if without an else the block counts as run; of two ways that never meet before they join, each as half; the
    way to the end of the kernel, where the other goes on, as never.
    """
    backward = {(number, loop.first) for loop in loops for number in loop.blocks}
    forward = {n: [m for m in blocks[n].next if (n, m) not in backward] for n in reachable(blocks)}
    order = _in_order(forward)
    later: dict[int, set[int]] = {}
    for number in reversed(order):
        later[number] = set(forward[number]).union(*(later[following] for following in forward[number]))
    inside = {n: {place for place, loop in enumerate(loops) if n in loop.blocks} for n in order}
    share = dict.fromkeys(order, 0.0) | {order[0]: 1.0}
    for number in order:
        mine = min(1.0, share[number])
        share[number] = mine
        ways = forward[number]
        for way in ways:
            others = [other for other in ways if other != way]
            if any(way in later[other] for other in others):
                continue  # what comes after the if
            apart = [o for o in others if o not in later[way] and inside[o] == inside[way]]
            ends = not later[way] and blocks[way].instructions[-1].code == "EXIT"
            alone = all(not later[o] and blocks[o].instructions[-1].code == "EXIT" for o in apart)
            share[way] += mine * (0.0 if ends and apart else 1.0 if alone else 1 / (1 + len(apart)))
    return share


def _in_order(forward: dict[int, list[int]]) -> list[int]:
    """The blocks, each after all that lead to it."""
    order: list[int] = []
    state: dict[int, bool] = {}
    waiting = [(next(iter(forward)), False)]
    while waiting:
        number, done = waiting.pop()
        if done:
            order.append(number)
        elif number not in state:
            state[number] = True
            waiting += [(number, True), *((following, False) for following in forward[number])]
    return order[::-1]


def _dominators(order: list[int], before: dict[int, list[int]]) -> dict[int, set[int]]:
    """The blocks that every way to a block passes through, itself among them."""
    everything = set(order)
    above = dict.fromkeys(order, everything) | {order[0]: {order[0]}}
    changed = True
    while changed:
        changed = False
        for number in order[1:]:
            new = set.intersection(*(above[earlier] for earlier in before[number])) | {number}
            if new != above[number]:
                above[number], changed = new, True
    return above

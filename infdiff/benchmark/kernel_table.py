"""Counts of kernels as a text table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infdiff.benchmark.disassembly import NO_DISASSEMBLER
from infdiff.benchmark.kernel_counts import COUNTED, PER_MILLISECOND, Count
from infdiff.files import save_json
from infdiff.tables import text_table

_NOT_COUNTED = f"The instructions that run were compared with counts by hand for {COUNTED} alone: see --arch {COUNTED}."
_LEGEND = (
    "Shapes of a training step of ffhq_256; at 2 and 4 pixels a tap, one image of 512 x 512 and of 1024 x 1024. a\n"
    "launch: warp instructions in millions, counted, not measured; each: for each point, cell or pixel. ms at full\n"
    "issue: on an H100 that issues in every cycle; a launch takes longer."
)


def as_text(architecture: str, compiler: str, counts: Sequence[Count]) -> str:
    """The table with a heading and a legend."""
    lines = [f"{architecture}, {compiler}", text_table([_row(c) for c in counts], left=("kernel",))]
    told = NO_DISASSEMBLER if counts[0].instructions is None else _LEGEND
    return "\n".join([*lines, told if architecture == COUNTED or told == NO_DISASSEMBLER else _NOT_COUNTED])


def save(file: Path, architecture: str, compiler: str, counts: Sequence[Count]) -> None:
    """Write the numbers to a JSON file."""
    save_json(file, {"architecture": architecture, "compiler": compiler, "kernels": [c.record() for c in counts]})


def _row(count: Count) -> dict[str, str]:
    row = {
        "kernel": count.kernel,
        "registers": str(count.needs.registers),
        "spilled": str(count.needs.spilled),
        "shared": str(count.needs.shared),
    }
    if count.instructions is not None:
        row["instructions"] = str(count.instructions)
    if count.each is not None and count.total is not None:
        row |= {
            "each": f"{count.each:.1f}",
            "a launch": f"{count.total / 1e6:.1f}",
            "ms at full issue": f"{count.total / PER_MILLISECOND:.3f}",
        }
    return row

"""Timings of operators as a text table and as JSON."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from infdiff.benchmark.operators import Case
from infdiff.benchmark.timing import LeftOut, Row
from infdiff.coordinates import format_size
from infdiff.files import save_json
from infdiff.ops import torchsparse_backend
from infdiff.ops.gpu import launch
from infdiff.tables import text_table

_WIDTH = 140
_TEXTS = ("backend", "shape", "k", "density", "type", "pass")  # columns that are aligned to the left
_LEGEND = (
    "shape: batch x points x channels of the image -> grid. k: taps along a side, x pixels per base pixel. +backward: "
    "both passes.\n"
    "ms: the median. MB: the fewest that must be read and written. GB/s: these bytes over the time; what fits in a "
    "cache can beat a copy."
)


def environment(device: torch.device, seed: int, repeat: int) -> dict[str, Any]:
    """Return a record of the device and the settings of the measurement, for JSON."""
    on_cuda = device.type == "cuda"
    processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if on_cuda else processor,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "kernels": launch.why_closed() or "open",
        "torchsparse": torchsparse_backend.why_missing() or "found",
        "seed": seed,
        "repeat": repeat,
    }


def record_of(row: Row, copy: float | None) -> dict[str, Any]:
    """Return a row as a record for JSON. copy: bytes a second of a copy within the device, None on a CPU."""
    case, timing = row.case, row.timing
    seconds = timing.median / 1000
    points = case.batch * case.points if case.operator != "resize_kernel" else None
    return asdict(case) | {
        "points": case.points,
        "density": 1 / case.one_in,
        "backend": row.backend,
        "route": row.route,
        "pass": row.direction,
        "median_ms": timing.median,
        "minimum_ms": timing.minimum,
        "spread_ms": timing.spread,
        "repeats": timing.repeats,
        "bytes": row.bytes,
        "gb_per_s": row.bytes / seconds / 1e9,
        "share_of_copy": row.bytes / seconds / copy if copy else None,
        "ns_per_point": seconds * 1e9 / points if points else None,
    }


def save_rows(
    path: Path, about: dict[str, Any], rows: Sequence[Row], left_out: Iterable[LeftOut], copy: float | None
) -> None:
    """Write all of it as JSON, atomically."""
    content = {
        "environment": about | {"copy_gb_per_s": copy / 1e9 if copy else None},
        "results": [record_of(row, copy) for row in rows],
        "left_out": [asdict(entry.case) | {"backend": entry.backend, "why": entry.why} for entry in left_out],
    }
    save_json(path, content)


def as_text(about: dict[str, Any], rows: Sequence[Row], left_out: Iterable[LeftOut], copy: float | None = None) -> str:
    """Return the rows as text, with a table for each operator."""
    threads = f"{about['threads']} threads, " if about["device"] == "cpu" else ""
    lines = [f"{about['device']}: {about['device_name']}, {threads}torch {about['torch']}"]
    lines += [f"kernels: {about['kernels']}"]
    lines += [f"copy within the device: {copy / 1e9:.0f} GB/s"] if copy else []
    for operator in dict.fromkeys(row.case.operator for row in rows):
        lines += ["", operator, *_block([row for row in rows if row.case.operator == operator], copy)]
    lines += ["", _LEGEND] if rows else []
    reasons: dict[tuple[str, str], int] = {}
    for entry in left_out:
        reasons[entry.backend, entry.why] = reasons.get((entry.backend, entry.why), 0) + 1
    lines += ["", "Left out:"] if reasons else []
    for (backend, why), count in reasons.items():
        text = f"{backend}, {count} {'case' if count == 1 else 'cases'}: {why}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _block(rows: Sequence[Row], copy: float | None) -> list[str]:
    """Return the lines of the table of one operator."""
    table = text_table([_cells(row, copy) for row in rows], left=_TEXTS)
    return textwrap.indent(table, "  ").splitlines()


def _cells(row: Row, copy: float | None) -> dict[str, str]:
    record = record_of(row, copy)
    case = row.case
    taps = str(case.kernel_size) if case.kernel_size else ""
    return {
        "backend": row.route if row.route.startswith(row.backend) else f"{row.backend}: {row.route}",
        "shape": _shape(case),
        "k": taps if case.scale == 1 else f"{taps} x {case.scale:g}",
        "density": "" if case.operator == "resize_kernel" else "1" if case.one_in == 1 else f"1/{case.one_in}",
        "type": case.dtype,
        "pass": "forward" if row.direction == "forward" else "+backward",
        "ms": f"{row.timing.median:.3f}",
        "ns/point": _number(record["ns_per_point"]),
        "MB": _number(row.bytes / 1e6),
        "GB/s": _number(record["gb_per_s"]),
        "of copy": "" if record["share_of_copy"] is None else f"{record['share_of_copy']:.0%}",
    }


def _number(value: float | None) -> str:
    """Return a number with three digits or more, never with an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}" if value >= 0.001 else f"{value:.1g}"


def _shape(case: Case) -> str:
    if case.operator == "resize_kernel":
        return f"{case.channels} x {case.kernel_size} x {case.kernel_size}"
    points = [case.batch, case.points, *([case.channels] if case.channels else [])]
    text = f"{'x'.join(map(str, points))} of {format_size((case.side, case.side))}"
    if not case.grid:
        return text
    grid = format_size((case.grid, case.grid))
    if case.operator == "grid_to_points":
        return f"{text} <- {grid}"
    return f"{text} -> {grid}{', with search' if case.search else ''}"

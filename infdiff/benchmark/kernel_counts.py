"""Counts of the instructions that CUDA kernels run, from their machine code: without a GPU, and without a time.

Shapes are those of a training step of `ffhq_256`: batch 32, 256 x 256 pixels, one in 4 a point, 64 channels in
bfloat16, 7 x 7 taps, a grid of 128 x 128 cells; those of convolutions of complete images are in `dense_works`. How
often each loop turns is read off a draw of points.

Counted: the instructions of every block that can run, each as often as the loops around it turn. A loop of the machine
code is known by the source line that jumps back; of a loop that the compiler unrolled, the copies are told by how often
an instruction of its body stands in it. Not counted: functions that are called (slow cases of divisions). Counted as if
always run: what an `if` without an else skips, but for lines named in a `Work`. Of two alternatives, each counts half.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from infdiff.benchmark.dense_works import dense_works
from infdiff.benchmark.disassembly import Block, Loop, Needs, compile_kernels, disassemble, loops_of, shares
from infdiff.benchmark.kernel_work import Turns, Work
from infdiff.errors import UserError
from infdiff.ops.gpu import layout, listed, norms
from infdiff.ops.gpu.nvrtc import CompileError, compiler_versions
from infdiff.ops.lattice_index import lattice_index_ref
from infdiff.points import draw_points

# Loops and jumps of other architectures' machine code were not held to counts by hand: only its length is told.
COUNTED = "sm_90"

BATCH, SIDE, POINTS, CHANNELS, TAPS, GRID = 32, 256, 16384, 64, 7, 128
_DRAWN = 4  # images that trip counts are averaged over

# One NVIDIA H100 SXM at its boost clock: warp instructions a millisecond if every scheduler issues in every cycle.
PER_MILLISECOND = 132 * 4 * 1.755e6

_FEATURES = {"SCALAR": 2, "CHANNELS": CHANNELS}
_WINDOW = {"WINDOW_HEIGHT": TAPS, "WINDOW_WIDTH": TAPS}


# Lines of modulated_norm.cu that only norms of sums, and gradients of what is passed on, run.
_WITH_A_SUM = (
    "Part::read(added",
    "for (int i = 0; i < VECTOR; ++i) row.x[part][i] = widen(narrow(row.x[part][i] + more",
    "Part::write(row.x, lane, alive, total",
    "Part::read(passed",
    "for (int i = 0; i < VECTOR; ++i) g[part][i] += row.x[part][i]",
)


class Count(NamedTuple):
    """The needs of a kernel and the instructions it runs; the last three are None without a disassembler."""

    kernel: str
    needs: Needs
    instructions: int | None  # in the machine code
    each: float | None  # warp instructions for each point, cell or pixel
    total: float | None  # warp instructions of a launch

    def record(self) -> dict[str, Any]:
        """The numbers by name, for JSON."""
        return (
            {"kernel": self.kernel}
            | self.needs._asdict()
            | {
                "instructions": self.instructions,
                "warp_instructions_each": self.each,
                "warp_instructions": self.total,
            }
        )


def count_kernels(architecture: str, disassembler: str | None) -> tuple[str, list[Count]]:
    """Compile every kernel that `works` names, and count: the compiler's versions, and a row for each kernel.

    Raises UserError where there is no compiler, or it does not know the architecture.
    """
    try:
        return compiler_versions(), _count(architecture, disassembler)
    except CompileError as problem:
        raise UserError(str(problem)) from problem


def _count(architecture: str, disassembler: str | None) -> list[Count]:
    rows, compiled = [], {}
    for work in works():
        key = (work.source, *sorted(work.defines.items()))
        if key not in compiled:
            code = compile_kernels(work.source, work.defines, architecture)
            compiled[key] = code, disassemble(code, disassembler) if disassembler else None
        code, blocks = compiled[key]
        needs = code.needs[work.entry]
        # What a launch asks for, the compiler does not know.
        needs = needs._replace(shared=needs.shared + work.defines.get("SHARED", 0))
        static = None if blocks is None else sum(len(block.instructions) for block in blocks[work.entry])
        if blocks is None or work.loops is None or architecture != COUNTED:
            rows.append(Count(work.name, needs, static, None, None))
            continue
        total = work.warps * per_warp(blocks[work.entry], work)
        rows.append(Count(work.name, needs, static, total / work.units, total))
    return rows


def per_warp(blocks: Sequence[Block], work: Work) -> float:
    """Instructions that one warp runs."""
    loops = loops_of(list(blocks))
    turns = _turns(blocks, loops, work)
    total = 0.0
    for number, share in shares(list(blocks), loops).items():
        often = share * prod(turns[place] for place, loop in enumerate(loops) if number in loop.blocks)
        for instruction in blocks[number].instructions:
            total += often * prod(part for line, part in work.parts.items() if _any(line, instruction.lines))
    return total


def unknown_loops(blocks: Sequence[Block], work: Work) -> list[Loop]:
    """Loops of the machine code that `work` says nothing of: they are counted as turning once."""
    return [loop for loop in loops_of(list(blocks)) if _known(loop, work) is None]


def _known(loop: Loop, work: Work) -> str | None:
    return next((line for line in work.loops or () if _any(line, loop.lines)), None)


def _any(line: str, lines: Sequence[str]) -> bool:
    return any(here.startswith(line) for here in lines)


def _turns(blocks: Sequence[Block], loops: Sequence[Loop], work: Work) -> list[float]:
    """The turns of each loop, each time it is met.

    Of loops of one source line in the same loop, those with more copies of the body turn first, and the others as often
    as is left. Those with equally many are alternatives, or follow one another in the source: each turns as often.
    """
    turns = [1.0] * len(loops)
    groups: dict[tuple[str, frozenset[int]], list[int]] = {}
    for place, loop in enumerate(loops):
        outer = frozenset(i for i, other in enumerate(loops) if loop.blocks < other.blocks)
        if (line := _known(loop, work)) is not None:
            groups.setdefault((line, outer), []).append(place)
    for (line, _), places in groups.items():
        known = (work.loops or {})[line]
        copies = {place: _copies(blocks, loops[place], known) for place in places}
        left = known.often
        for number in sorted(set(copies.values()), reverse=True):
            here = left / number if number == min(copies.values()) else float(int(left / number))
            left -= here * number
            for place in places:
                if copies[place] == number:
                    turns[place] = here
    return turns


def _copies(blocks: Sequence[Block], loop: Loop, turns: Turns) -> int:
    """The turns of the source's loop in one of the machine's."""
    if not turns.body:
        return 1
    found = sum(i.code.startswith(turns.body) for number in loop.blocks for i in blocks[number].instructions)
    return max(1, round(found / turns.each))


class Draw(NamedTuple):
    """Averages over the points of a draw, on which turns depend."""

    neighbours: float  # of a point, itself among them
    padded: float  # the same, filled up to pairs
    most_of_four: tuple[float, float]  # of four consecutive points, among the first 32 offsets and the others
    most_padded: float  # the same of all offsets, filled up to pairs
    steps: float  # of four pairs, for one offset of one stretch of points
    most_read: float  # of four consecutive cells: points that read a cell of the grid


def draw() -> Draw:
    """Average over the images of a draw."""
    ids = draw_points(_DRAWN, POINTS, (SIDE, SIDE), torch.Generator().manual_seed(0))
    present = _neighbours(ids)
    count = present.sum(-1)
    filled = count + count % 2

    def most(counts: Tensor) -> float:
        return counts.view(_DRAWN, -1, 4).amax(-1).double().mean().item()

    halves = most(present[..., :32].sum(-1)), most(present[..., 32:].sum(-1))
    pairs = present.view(_DRAWN, -1, listed.STRETCH, TAPS**2).sum(2)
    # A pixel reads the four cells around it: a cell is read by the pixels less than a cell's side from its centre.
    side = SIDE // GRID
    image = (lattice_index_ref(ids, (SIDE, SIDE)) >= 0).double().unsqueeze(1)
    read = torch.nn.functional.avg_pool2d(image, 2 * side, side, side // 2) * 4 * side**2
    means = [x.double().mean().item() for x in (count, filled, (pairs + 3) // 4)]
    return Draw(means[0], means[1], halves, most(filled), means[2], most(read))


def _neighbours(ids: Tensor) -> Tensor:
    """(B, L, window) bool: whether there is a point at each offset from each point."""
    half = TAPS // 2
    there = torch.nn.functional.pad(lattice_index_ref(ids, (SIDE, SIDE)) >= 0, (half,) * 4)
    rows, columns = ids // SIDE, ids % SIDE
    image = torch.arange(len(ids)).view(-1, 1)
    return torch.stack([there[image, rows + i, columns + j] for i in range(TAPS) for j in range(TAPS)], dim=-1)


def works() -> list[Work]:
    """Every kernel of a training step, in the order in which a step first runs them."""
    drawn, points, cells = draw(), BATCH * POINTS, BATCH * GRID**2
    rows, stretches = points / 4, points / listed.STRETCH
    each_neighbour = "FFMA", 8
    searched = {
        "for (int first = 0; first < WINDOW; first += List::LENGTH) {": Turns(2),
        "for (int i = 0; i < length; ++i) {": Turns(sum(drawn.most_of_four) / 2, *each_neighbour),
    }
    chunks, length = layout.chunks(points, 1, least=64)
    list_chunks, list_length = layout.chunks(int(stretches), TAPS**2 * CHANNELS)
    per_offset = TAPS**2 / 4
    sparse, lists = _FEATURES | _WINDOW | {"NEIGHBOURS": 0}, _FEATURES | _WINDOW
    normed = _FEATURES | {"MODULATION": 2}
    scaled_blocks, scaled_length = listed.pieces(POINTS, CHANNELS)
    norm_blocks, norm_rows = norms.blocks_of_backward(BATCH, POINTS, CHANNELS)
    return [
        Work(
            "permuted_pixels.cu",
            "permuted_pixels",
            {},
            points / 32,
            points,
            {"for (int round = blockIdx.y; round < rounds * batch": Turns(4)},
        ),
        Work(
            "neighbour_lists.cu",
            "neighbour_lists",
            _WINDOW,
            points / 32,
            points,
            {
                "for (int i = 0; i < WINDOW_HEIGHT; ++i)": Turns(TAPS),
                "for (int j = 0; j < WINDOW_WIDTH; ++j)": Turns(TAPS, "VOTE", 1),
            },
        ),
        Work(
            "listed_conv.cu",
            "listed_conv",
            lists,
            rows / 4,
            points,
            {
                "for (int offset = place; offset <= WINDOW": Turns(ceil((TAPS**2 + 1) / 16), "STS", 1),
                "for (int run = 0; run < RUNS; ++run)": Turns(4),
                "for (int n = 2; n < length + 2; n += 2)": Turns(drawn.most_padded / 2, "FFMA", 16),
            },
        ),
        Work(
            "listed_conv.cu",
            "listed_taps",
            lists,
            list_chunks * 4,
            points,
            {
                "for (int stretch = begin; stretch < end; ++stretch)": Turns(list_length),
                "for (int offset = warp; offset < WINDOW; offset += WARPS)": Turns(per_offset, "SHFL", 16),
                "for (int n = group; n < length; n += GROUPS)": Turns(drawn.steps, *each_neighbour),
            },
        ),
        Work(
            "sum_chunks.cu",
            "sum_chunks",
            {},
            TAPS**2 * CHANNELS / 32 * 4,
            points,
            {"for (int chunk = warp; chunk < chunks; chunk += WARPS)": Turns(list_chunks / 4, "FADD", 1)},
        ),
        Work(
            "scaled_rows.cu",
            "scaled_rows",
            _FEATURES,
            BATCH * scaled_blocks * 4,
            points,
            {
                "for (int row = begin + place; row < end": Turns(scaled_length / 16, "LDG", 2),
                "for (int i = threadIdx.x; i < LANES": Turns(1),
                "for (int other = 0; other < ROWS_PER_BLOCK": Turns(16, "FADD", 1),
            },
        ),
        Work("sparse_conv.cu", "sparse_conv", sparse, rows, points, searched),
        Work("sparse_conv.cu", "sparse_conv_transposed", sparse, rows, points, searched),
        Work(
            "sparse_conv.cu",
            "sparse_conv_taps",
            sparse,
            chunks * TAPS * 4,
            points,
            {
                "for (int64 p = (int64)blockIdx.x * chunk_length + warp": Turns(length / 4),
                "for (int place = threadIdx.x; place < STRETCH * TILE": Turns(4, "STG", 1),
            },
            {"if (channel + i < CHANNELS) sum[j][i] +=": drawn.neighbours / TAPS**2 * TAPS / 8},
        ),
        Work(
            "modulated_norm.cu",
            "modulated_norm",
            normed,
            rows / norms.ROWS,
            points,
            {"for (int first = begin; first < end; first += AT_ONCE)": Turns(norms.ROWS)},
            dict.fromkeys(_WITH_A_SUM, 0.0),
        ),
        Work(
            "modulated_norm.cu",
            "modulated_norm_backward",
            normed,
            BATCH * norm_blocks * 4,
            points,
            {
                "for (int first = begin; first < end; first += AT_ONCE)": Turns(norm_rows / 16),
                "for (int which = 0; which < 2;": Turns(2),
                "for (int c = threadIdx.x; c < CHANNELS; c += THREADS)": Turns(1),
                "for (int other = 0; other < AT_ONCE; ++other)": Turns(16, "FADD", 1),
            },
            dict.fromkeys(_WITH_A_SUM, 0.0),
        ),
        Work(
            "modulated_norm.cu",
            "modulated_norm_sums",
            normed,
            CHANNELS / 8 * 4,
            points,
            {
                "for (int image = place; image < batch && alive; image += IMAGES)": Turns(BATCH / 16),
                "for (int block = 0; block < blocks; ++block": Turns(norm_blocks, "FADD", 2),
                "for (int other = 0; other < IMAGES; ++other)": Turns(16, "FADD", 1),
            },
        ),
        Work("interpolation.cu", "points_to_grid", _FEATURES, cells / 4, cells, None),
        Work("interpolation.cu", "points_to_grid_transposed", _FEATURES, rows, points, None),
        Work("interpolation.cu", "grid_to_points", _FEATURES, rows, points, {}),
        Work(
            "interpolation.cu",
            "grid_to_points_transposed",
            _FEATURES,
            cells / 4,
            cells,
            {
                "for (int first = 0; __any_sync": Turns(1),
                # Of the 32 candidates that fit, as many as there are.
                "for (int round = 0; round < List::LENGTH": Turns((2 * SIDE / GRID) ** 2 / 8, "VOTE", 2),
                "for (int i = 0; i < length; ++i)": Turns(drawn.most_read, *each_neighbour),
            },
        ),
        *dense_works(CHANNELS, TAPS, BATCH, SIDE),
        Work("lattice_index.cu", "lattice_index", {}, points / 32, points, None),
        Work("inverse_count.cu", "inverse_count", {"WIDE": 0}, points / 32, points, None),
        Work("nearest_points.cu", "nearest_points", {}, cells / 32, cells, None),
    ]

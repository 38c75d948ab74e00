"""Counting a compiled kernel's instructions: the machine code's blocks, its loops, and how often they turn."""

import json

import pytest

from infdiff.benchmark import disassembly, kernel_counts
from infdiff.benchmark.kernel_work import Turns, Work
from infdiff.ops.gpu import nvrtc
from tests.conftest import assert_one_line_error

LOG = """ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
ptxas         .     0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem
ptxas info    : Function properties for two
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers
"""
SOURCE = "first\nfor (outer)\nfor (inner)\nif (some)\nthen\nelse\nlast"
# Four instructions in 3 turns of the outer loop, around an inner loop of two copies and of one, and an if with an else.
TEXT = """
.text.kernel:
	//## File "/x/kernel.cu", line 1
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
.L_x_0:
	//## File "/x/kernel.cu", line 2
        /*0020*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
	//## File "/x/kernel.cu", line 7 inlined at "/x/kernel.cu", line 3
	//## File "/x/kernel.cu", line 3
        /*0030*/                   FADD R2, R2, R3 ;
        /*0040*/                   FADD R2, R2, R4 ;
	//## File "/x/kernel.cu", line 3
        /*0050*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0060*/                   FADD R2, R2, R3 ;
        /*0070*/               @P2 BRA `(.L_x_2) ;
	//## File "/x/kernel.cu", line 4
        /*0080*/               @P3 BRA `(.L_x_3) ;
	//## File "/x/kernel.cu", line 5
        /*0090*/                   MOV R1, R2 ;
        /*00a0*/                   MOV R1, R2 ;
        /*00b0*/                   BRA `(.L_x_4) ;
.L_x_3:
	//## File "/x/kernel.cu", line 6
        /*00c0*/                   MOV R1, R3 ;
.L_x_4:
	//## File "/x/kernel.cu", line 2
        /*00d0*/               @P4 BRA `(.L_x_0) ;
        /*00e0*/                   EXIT ;
.L_x_5:
        /*00f0*/                   BRA `(.L_x_5);
//--------------------- .text.other ----------
"""
WORK = Work("", "kernel", {}, 1, 1, {"for (outer)": Turns(3), "for (inner)": Turns(5, "FADD", 1)})


def test_what_the_compiler_says():
    assert disassembly.read_needs(LOG) == {"one": (40, 12, 4096), "two": (32, 0, 0)}


def test_instructions_as_often_as_their_loops_turn():
    blocks = disassembly.parse(TEXT, SOURCE)["kernel"]
    assert [sorted(len(blocks[b].instructions) for b in loop.blocks) for loop in disassembly.loops_of(blocks)] != []
    # Five turns: two of three instructions, and one of two. Of the alternatives of 3 and 1 instructions, half each.
    once = 1 + (2 * 3 + 1 * 2) + 1 + (3 + 1) / 2 + 1
    assert kernel_counts.per_warp(blocks, WORK) == pytest.approx(2 + 3 * once + 1)
    assert kernel_counts.unknown_loops(blocks, WORK) == []


def test_a_line_that_does_not_always_run_counts_in_part():
    blocks = disassembly.parse(TEXT, SOURCE)["kernel"]
    rare = Work("", "kernel", {}, 1, 1, WORK.loops, {"else": 0.5})
    assert kernel_counts.per_warp(blocks, WORK) - kernel_counts.per_warp(blocks, rare) == pytest.approx(3 * 0.25)
    (unknown,) = kernel_counts.unknown_loops(blocks, Work("", "kernel", {}, 1, 1, {"for (inner)": Turns(1)}))
    assert "for (outer)" in unknown.lines


def test_the_draw_is_as_dense_as_it_says():
    drawn = kernel_counts.draw()
    # A quarter of the window's other pixels, and the point itself; less at the border.
    assert 0.95 < drawn.neighbours / (1 + 48 / 4) < 1
    assert drawn.neighbours < drawn.padded < drawn.most_padded < sum(drawn.most_of_four) + 1
    assert drawn.steps == pytest.approx((128 * drawn.neighbours / 49 + 1.5) / 4, rel=0.02)


def test_without_a_disassembler_one_line_says_what_is_missing(command, tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(disassembly.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(disassembly, "distribution", raise_missing)
    works = kernel_counts.works()[:8]
    monkeypatch.setattr(kernel_counts, "works", lambda: works)
    result = command("benchmark", "kernels", "--json", "kernels.json")
    assert result.returncode == 0, result.stderr
    assert "nvdisasm is not there" in result.stdout
    saved = json.loads((tmp_path / "kernels.json").read_text())
    assert saved["architecture"] == "sm_90"
    assert {row["kernel"] for row in saved["kernels"]} == {work.name for work in works}
    assert all(row["registers"] > 0 and row["spilled"] >= 0 for row in saved["kernels"])
    assert all(row["warp_instructions"] is None for row in saved["kernels"])


def raise_missing(name):
    raise disassembly.PackageNotFoundError(name)


def test_no_such_architecture(command):
    assert_one_line_error(command("benchmark", "kernels", "--arch", "sm9"), "--arch sm9", "sm_90")


@pytest.mark.skipif(disassembly.find_disassembler() is None, reason=disassembly.NO_DISASSEMBLER)
@pytest.mark.parametrize("work", kernel_counts.works(), ids=lambda work: work.name)
def test_every_loop_of_a_kernel_has_its_turns(work):
    compiled = disassembly.compile_kernels(work.source, work.defines, "sm_90")
    blocks = disassembly.disassemble(compiled, disassembly.find_disassembler())[work.entry]
    assert work.loops is None or kernel_counts.unknown_loops(blocks, work) == []
    assert compiled.needs[work.entry].registers > 0
    assert kernel_counts.per_warp(blocks, work) > 0


def test_works_name_kernels_that_are_there():
    for work in kernel_counts.works():
        assert nvrtc.parameters(work.source, work.entry)
        assert all(line in nvrtc.read_source(work.source) for line in (*(work.loops or ()), *work.parts))

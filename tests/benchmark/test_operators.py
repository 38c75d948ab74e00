"""The benchmark of the operators: the cases, their bytes counted by hand, that the right thing runs, and the table."""

import json
from dataclasses import replace

import pytest
import torch

from infdiff import ops
from infdiff.benchmark import operator_table, operators, timing
from infdiff.benchmark.operators import CONVOLUTIONS, OPERATORS, PLANS, QUICK_PLANS, Case, Plan
from infdiff.points import draw_points
from tests.ops.places import places

CPU = torch.device("cpu")
SMALL = Plan(2, (8,), (4, 1), (3,), (3,), ("float32",), 4, 3, (2.0, 2.5))
DEPTHWISE = Case("sparse_depthwise_conv2d", 2, 8, 4, 3, 3, dtype="float32")


@pytest.mark.parametrize("plans", [PLANS, QUICK_PLANS])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plans_hold_every_operator_and_no_case_twice(plans, device):
    cases = operators.cases_of(plans[device])
    assert {case.operator for case in cases} == set(OPERATORS)
    assert len(set(cases)) == len(cases)
    for name in OPERATORS:
        assert operators.cases_of(plans[device], name) == [case for case in cases if case.operator == name]


def test_the_plan_for_cuda_holds_the_settings_that_have_targets():
    cases = operators.cases_of(PLANS["cuda"])
    convolution = Case("sparse_depthwise_conv2d", 32, 256, 4, 64, 7, dtype="bfloat16")
    assert convolution.batch * convolution.points == 524_288
    to_grid = Case("points_to_grid", 32, 256, 4, 64, grid=128, dtype="bfloat16")
    wanted = {convolution, replace(convolution, one_in=1), to_grid, replace(to_grid, search=True)}
    wanted |= {replace(convolution, channels=c) for c in (8, 65, 128)}
    wanted |= {replace(convolution, kernel_size=k) for k in (3, 13, 29)}
    wanted |= {replace(convolution, dtype=dtype) for dtype in ("float32", "float16")}
    assert wanted <= set(cases)


def byte_counts(case):
    subject, _ = operators.prepare(case, "auto", CPU, 0)
    return {direction: count for direction, (_, count) in subject.passes().items()}


def test_bytes_of_a_convolution_counted_by_hand():
    features, taps, ids, index, inverse = 2 * 16 * 3 * 4, 3 * 9 * 4, 2 * 16 * 8, 2 * 64 * 4, 2 * 16 * 4
    forward = features + taps + ids + index + inverse + features
    backward = features + (features + taps + ids + index + inverse) + (features + taps)
    assert byte_counts(DEPTHWISE) == {"forward": forward, "forward+backward": forward + backward}
    regular = replace(DEPTHWISE, operator="sparse_conv2d")
    more = 3 * 3 * 9 * 4 - taps
    assert byte_counts(regular) == {"forward": forward + more, "forward+backward": forward + backward + 3 * more}


def test_with_all_pixels_nothing_says_where_they_are_and_the_count_is_shared():
    features, taps, inverse = 2 * 64 * 3 * 4, 3 * 9 * 4, 64 * 4
    assert byte_counts(replace(DEPTHWISE, one_in=1))["forward"] == 2 * features + taps + inverse
    half = replace(DEPTHWISE, one_in=1, dtype="bfloat16")
    assert byte_counts(half)["forward"] == features + taps // 2 + inverse


def test_bytes_of_the_other_operators_counted_by_hand():
    ids, index, cells = 2 * 16 * 8, 2 * 64 * 4, 2 * 16
    features, grid, neighbours = 2 * 16 * 3 * 4, cells * 3 * 4, cells * (10 * (4 + 4) + 4)
    to_grid = Case("points_to_grid", 2, 8, 4, 3, grid=4, dtype="float32")
    forward = features + neighbours + grid
    assert byte_counts(to_grid) == {"forward": forward, "forward+backward": 2 * forward}
    search = ids + index
    assert byte_counts(replace(to_grid, search=True))["forward"] == forward + search
    from_grid = byte_counts(replace(to_grid, operator="grid_to_points"))
    assert from_grid["forward"] == grid + ids + features
    assert from_grid["forward+backward"] == from_grid["forward"] + features + index + grid
    places = Case("lattice_index", 2, 8, 4)
    assert byte_counts(places) == {"forward": ids + index}
    assert byte_counts(replace(places, operator="inverse_count", kernel_size=3)) == {
        "forward": ids + index + 2 * 16 * 4
    }
    nearest = byte_counts(replace(places, operator="nearest_points", grid=4))
    assert nearest == {"forward": ids + index + neighbours + 2 * 16 * 4}
    resize = byte_counts(Case("resize_kernel", 1, 1, 1, 3, 3, scale=2.0, dtype="float32"))
    assert resize == {"forward": 3 * (9 + 49) * 4, "forward+backward": 2 * 3 * (9 + 49) * 4}


@pytest.mark.parametrize(("case", "backend"), timing.split(operators.cases_of(SMALL), CPU)[0], ids=str)
def test_what_is_timed_is_the_operator_with_all_its_gradients(case, backend):
    subject, route = operators.prepare(case, backend, CPU, 0)
    passes = subject.passes()
    out = passes["forward"][0]()
    size, cells, scale = (case.side,) * 2, (case.grid,) * 2, (case.scale,) * 2
    ids = draw_points(case.batch, case.points, size, torch.Generator().manual_seed(0))
    reference = getattr(ops, f"{case.operator}_ref")
    if case.operator in CONVOLUTIONS:
        assert route.split("/")[0] in ("lattice", "dense")
    arguments = {
        "points_to_grid": lambda: (*subject.inputs, ops.nearest_points_ref(ids, size, cells)),
        "grid_to_points": lambda: (*subject.inputs, ids, size),
        "resize_kernel": lambda: (*subject.inputs, scale),
        "nearest_points": lambda: (ids, size, cells),
        "inverse_count": lambda: (ids, size, case.kernel_size, scale),
        "lattice_index": lambda: (ids, size),
    }
    expected = reference(*arguments.get(case.operator, lambda: (*subject.inputs, places(ids, size, scale)))())
    expected = expected[:4] if case.operator == "nearest_points" else expected
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert ("forward+backward" in passes) == bool(subject.inputs)
    if subject.inputs:
        gradients = passes["forward+backward"][0]()
        assert [g.shape for g in gradients] == [x.shape for x in subject.inputs]
        assert all(g.abs().sum() > 0 for g in gradients)


def test_backends_that_cannot_run_say_why(monkeypatch):
    cuda, module = torch.device("cuda"), operators.torchsparse_backend
    large, enlarged = replace(DEPTHWISE, batch=32, side=256, one_in=1, channels=64), replace(DEPTHWISE, scale=2.0)
    monkeypatch.setattr(module, "why_missing", lambda: None)
    assert set(operators.backends_of(DEPTHWISE, cuda).values()) == {None}
    assert "CUDA" in operators.backends_of(DEPTHWISE, CPU)["torchsparse"]
    assert "enlarged" in operators.backends_of(enlarged, cuda)["torchsparse"]
    monkeypatch.setattr(module, "why_missing", lambda: "it is not there")
    found = {"auto": None, "lattice": None, "torchsparse": "it is not there", "dense": None}
    assert operators.backends_of(DEPTHWISE, CPU) == found
    assert "too slow" in operators.backends_of(large, CPU)["lattice"]
    assert operators.backends_of(large, cuda)["lattice"] is None
    assert operators.backends_of(Case("lattice_index", 2, 8, 4), CPU) == {"auto": None}
    pairs, left_out = timing.split([DEPTHWISE, large], CPU)
    assert [backend for _, backend in pairs] == ["auto", "lattice", "dense", "auto", "dense"]
    assert [entry.backend for entry in left_out] == ["torchsparse", "lattice", "torchsparse"]


def test_an_enlarged_convolution_names_its_algorithm():
    case = Case("sparse_depthwise_conv2d", 1, 16, 1, 2, 7, dtype="float32")
    names = {scale: operators.prepare(replace(case, scale=scale), "auto", CPU, 0)[1] for scale in (1.0, 15.6, 16.0)}
    assert names == {1.0: "dense", 15.6: "dense/fourier", 16.0: "dense/dilated"}


def test_a_case_that_memory_is_too_small_for_is_left_out(monkeypatch):
    def scarce(case, *arguments):
        if case.channels == 5:
            raise torch.OutOfMemoryError("no memory")
        return operators.prepare(case, *arguments)

    monkeypatch.setattr(timing, "prepare", scarce)
    pairs, done = [(DEPTHWISE, "dense"), (replace(DEPTHWISE, channels=5), "auto")], []
    rows, left_out = timing.time_cases(pairs, CPU, 0, 2, lambda: done.append(1))
    assert [(row.case, row.backend, row.direction) for row in rows] == [
        (DEPTHWISE, "dense", "forward"),
        (DEPTHWISE, "dense", "forward+backward"),
    ]
    assert [(entry.case.channels, entry.why) for entry in left_out] == [(5, "the device's memory is too small")]
    assert len(done) == 2


def test_the_table_has_every_row_and_fits_140_columns(monkeypatch):
    monkeypatch.setattr(operators.torchsparse_backend, "why_missing", lambda: "it is not there")
    pairs, left_out = timing.split(operators.cases_of(PLANS["cuda"]), torch.device("cuda"))
    # The widest of everything.
    times, routes = timing.Timing(1234.5678, 1230.0, 10.25, 20), {"auto": "dense kernels/dilated"}
    rows = [
        timing.Row(case, backend, routes.get(backend, "kernels"), direction, times, 2_000_000_000)
        for case, backend in pairs
        for direction in ("forward", "forward+backward")
    ]
    about = operator_table.environment(CPU, 0, 20)
    text = operator_table.as_text(about, rows, left_out, copy=4e12)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 140
    assert sum(" forward " in line or " +backward " in line for line in lines) == len(rows)
    for operator in OPERATORS:
        assert operator in lines
    assert "32x16384x64 of 256 -> 128, with search" in text
    assert "7 x 15.5" in text
    assert f"torchsparse, {len(left_out)} cases: it is not there" in text[text.index("Left out:") :]


def test_bandwidth_and_share_are_bytes_over_time(tmp_path):
    row = timing.Row(DEPTHWISE, "auto", "dense", "forward", timing.Timing(2.0, 1.5, 0.25, 9), 3_000_000)
    record = operator_table.record_of(row, copy=3e9)
    assert record["gb_per_s"] == pytest.approx(1.5)
    assert record["share_of_copy"] == pytest.approx(0.5)
    assert record["ns_per_point"] == pytest.approx(2e6 / 32)
    assert record["density"] == 0.25
    left_out = [timing.LeftOut(DEPTHWISE, "torchsparse", "it is not there")]
    operator_table.save_rows(tmp_path / "a.json", operator_table.environment(CPU, 3, 9), [row], left_out, copy=3e9)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["environment"]["copy_gb_per_s"] == 3
    assert (content["environment"]["seed"], content["environment"]["repeat"]) == (3, 9)
    assert content["results"] == [record]
    assert content["left_out"][0]["why"] == "it is not there"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert operator_table.record_of(row, copy=None)["share_of_copy"] is None


def test_a_trace_names_each_pass(tmp_path):
    timing.trace([(DEPTHWISE, "dense")], CPU, 0, tmp_path / "trace.json")
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {f"sparse_depthwise_conv2d, dense, {d}" for d in ("forward", "forward+backward")} <= names
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]

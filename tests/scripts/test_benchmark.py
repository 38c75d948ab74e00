"""scripts/benchmark.py as users run it."""

import json

import pytest

from infdiff.eval.operators import OPERATORS
from tests.conftest import assert_one_line_error


@pytest.mark.parametrize("arguments", [["--help"], ["ops", "--help"]])
def test_help_has_examples(script, arguments):
    result = script("benchmark.py", *arguments)
    assert result.returncode == 0
    assert "  python scripts/benchmark.py ops --quick" in result.stdout


def test_a_quick_sweep_prints_a_table_and_keeps_the_numbers(script, tmp_path):
    result = script("benchmark.py", "ops", "--quick", "--device", "cpu", "--repeat", 2, "--json", "numbers.json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 140
    content = json.loads((tmp_path / "numbers.json").read_text())
    assert set(content) == {"environment", "results", "left_out"}
    environment = content["environment"]
    assert environment["device"] == "cpu"
    assert {"infdiff", "torch", "device_name", "threads", "kernels", "torchsparse", "seed"} <= set(environment)
    assert {record["operator"] for record in content["results"]} == set(OPERATORS)
    for record in content["results"]:
        assert 0 < record["minimum_ms"] <= record["median_ms"]
        assert record["bytes"] > 0
        assert record["pass"] in ("forward", "forward+backward")
    backends = {r["backend"] for r in content["results"] if r["operator"] == "sparse_depthwise_conv2d"}
    assert backends == {"auto", "lattice", "dense"}
    left_out = {(entry["operator"], entry["backend"]) for entry in content["left_out"]}
    assert {("sparse_depthwise_conv2d", "torchsparse"), ("sparse_conv2d", "torchsparse")} <= left_out
    assert all(entry["why"] for entry in content["left_out"])
    assert "Left out:" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_one_operator_with_a_trace(script, tmp_path):
    options = ["--quick", "--device", "cpu", "--repeat", 2, "--only", "resize_kernel", "--profile", "trace.json"]
    result = script("benchmark.py", "ops", *options)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line in OPERATORS] == ["resize_kernel"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "WHAT"),
        (["everything"], "'everything'"),
        (["ops", "--only", "convolution"], "--only"),
        (["ops", "--repeat", "0"], "--repeat 0"),
        (["ops", "--seed", "-1"], "--seed -1"),
        (["ops", "--json", "nowhere/numbers.json"], "--json nowhere/numbers.json"),
        (["ops", "--profile", "."], "--profile ."),
    ],
)
def test_bad_input_is_one_line(script, arguments, part):
    assert_one_line_error(script("benchmark.py", *arguments), part)

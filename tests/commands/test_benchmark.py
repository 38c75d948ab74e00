"""`infdiff benchmark` as users run it."""

import json

import pytest

from infdiff.benchmark.operators import OPERATORS
from tests.conftest import ROOT, TINY, assert_one_line_error


@pytest.mark.parametrize("what", ["", "ops", "train", "sample"])
def test_help_has_examples(command, what):
    result = command("benchmark", *what.split(), "--help")
    assert result.returncode == 0
    assert f"  infdiff benchmark {what}" in result.stdout


def test_a_quick_sweep_prints_a_table_and_keeps_the_numbers(command, tmp_path):
    result = command("benchmark", "ops", "--quick", "--device", "cpu", "--repeat", 2, "--json", "numbers.json")
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


def test_one_operator_with_a_trace(command, tmp_path):
    options = ["--quick", "--device", "cpu", "--repeat", 2, "--only", "resize_kernel", "--profile", "trace.json"]
    result = command("benchmark", "ops", *options)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line in OPERATORS] == ["resize_kernel"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        (["train", "--subsample", "1,4", "--batch", 2], [("16", "8", 1.0), ("16", "8", 4.0)]),
        (["sample", "--res", "16,24x32", "--batch", 2], [("16", "8", 1.0), ("24x32", "8", 1.0)]),
    ],
)
def test_steps_of_a_configuration_are_printed_and_kept(script, tmp_path, arguments, sizes):
    result = script("benchmark", *arguments, "--device", "cpu", "--repeat", 2, "--json", "numbers.json", *TINY)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 140
    content = json.loads((tmp_path / "numbers.json").read_text())
    assert {"infdiff", "device_name", "threads", "matrix_tflop_per_s", "config", "seed"} <= set(content["environment"])
    assert [(row["size"], row["grid"], row["subsample"]) for row in content["results"]] == sizes
    for row in content["results"]:
        assert 0 < row["minimum_ms"] <= row["median_ms"]
        assert row["repeats"] == 2
        assert row["flop"] > 0
        assert 0 < row["share_of_matrix_rate"] < 1
        assert row["peak_bytes"] is None or row["peak_bytes"] > 0
    printed = [line.split() for line in lines[3:6]]
    assert printed[0][:4] == ["size", "grid", "rate", "batch"]
    assert [row[0] for row in printed[1:]] == [size for size, _, _ in sizes]
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_a_table_of_the_paper_from_a_small_model(command, tmp_path):
    given = ["--config", ROOT / "configs" / "demo.yaml", "--batch", 2, "--repeat", 2, "--device", "cpu"]
    result = command("benchmark", "train", "--table", 3, *given, "--json", "table.json", *TINY)
    assert result.returncode == 0, result.stderr
    measured = result.stdout.split("Table 3")[1].splitlines()
    assert measured[1].split() == ["rate", "16", "/", "8"]
    assert measured[2].split() == ["1x", "1.00x"]
    factors = json.loads((tmp_path / "table.json").read_text())["table"]["factors"]
    assert [f["subsample"] for f in factors] == [1.0, 2.0, 4.0, 8.0]
    assert factors[0]["factor"] == 1
    assert all(f["factor"] > 0 for f in factors)


def test_a_changed_setting_is_measured_beside(command, tmp_path):
    config = ["--config", ROOT / "configs" / "dfu_landscapes_64.yaml", "model.grid.channels=8", "train.batch_size=2"]
    small = ["data.resolutions={8: 1, 16: 1}", "data.size=16", "--repeat", 2, "--device", "cpu"]
    result = command("benchmark", "train", *config, *small, "--against", "model.grid.modes=0", "--json", "both.json")
    assert result.returncode == 0, result.stderr
    _, other = result.stdout.split("With model.grid.modes=0:\n")
    assert other.splitlines()[0].endswith("time saved")
    assert [line.split()[0] for line in other.splitlines()[1:]] == ["8", "16"]
    found = json.loads((tmp_path / "both.json").read_text())
    assert found["against"]["changed"] == "model.grid.modes=0"
    for row, changed in zip(found["results"], found["against"]["results"], strict=True):
        assert row["flop"] > changed["flop"] > 0
        assert row["parameters"] > changed["parameters"]
        saved = f"{1 - changed['median_ms'] / row['median_ms']:.1%}"
        assert saved in other


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "WHAT"),
        (["everything"], "'everything'"),
        (["ops", "--only", "convolution"], "--only"),
        (["ops", "--repeat", "0"], "--repeat 0"),
        (["ops", "--seed", "-1"], "--seed: -1: want a whole number"),
        (["ops", "--json", "nowhere/numbers.json"], "--json nowhere/numbers.json"),
        (["ops", "--profile", "."], "--profile ."),
        (["train", "--table", "2"], "--table"),
        (["train", "--table", "3", "--res", "64"], "--table"),
        (["train", "--table", "3", "--points", "64"], "--table"),
        (["train", "--points", "64", "--subsample", "4"], "--points 64"),
        (["train", "--points", "0"], "--points 0"),
        (["train", "--points", "64", "--res", "4"], "train.subsample"),
        (["train", "--table", "3", "--budget", "4"], "--budget 4"),
        (["train", "--table", "3", "--against", "model.channels=8"], "--against"),
        (["train", "--against", "model.chanels=8"], "model.chanels"),
        (["train", "--subsample", "two"], "--subsample two"),
        (["train", "--subsample", "0"], "train.subsample: 0"),
        (["train", "--batch", "0"], "--batch 0"),
        (["train", "--config", "no.yaml"], "no.yaml"),
        (["sample", "--res", "big"], "--res"),
    ],
)
def test_bad_input_is_one_line(command, arguments, part):
    assert_one_line_error(command("benchmark", *arguments), part)


@pytest.mark.parametrize("what", ["train", "sample"])
def test_steps_are_counted_without_timing_them(script, tmp_path, what):
    result = script("benchmark", what, "--count", "--batch", 2, "--json", "counts.json", *TINY)
    assert result.returncode == 0, result.stderr
    assert "counted for CUDA, not measured" in result.stdout
    (record,) = json.loads((tmp_path / "counts.json").read_text())["results"]
    assert f"{record['launches']:,}" in result.stdout
    assert record["batch"] == 2
    assert (record["saved_bytes"] > 0) == (what == "train")


def test_counting_goes_without_a_comparison(command):
    result = command("benchmark", "train", "--count", "--against", "model.blocks=2")
    assert_one_line_error(result, "--count: goes with")

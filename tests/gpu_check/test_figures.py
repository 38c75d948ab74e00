"""Figures are read from what the benchmarks write."""

import json
from dataclasses import asdict

from infdiff.benchmark.cost import Setting, StepCost
from infdiff.benchmark.operators import QUICK_PLANS, cases_of
from infdiff.benchmark.timing import Timing
from infdiff.gpu_check.figures import FIGURES, table
from infdiff.gpu_check.parts import all_parts


def write(folder):
    """Files as the benchmarks leave them, every number another one."""
    rows = [
        asdict(case) | {"backend": backend, "pass": direction}
        for case in cases_of(QUICK_PLANS["cuda"])
        for backend in ("auto", "dense")
        for direction in ("forward", "forward+backward")
    ]
    results = [row | {"median_ms": 1000.0 + number} for number, row in enumerate(rows)]
    (folder / "ops.json").write_text(json.dumps({"results": results}))
    number = 1
    for name in (
        "train",
        "train-graph",
        "train-compiled",
        "train-densities",
        "sample-256",
        "sample-512",
        "sample-1024",
        "sample-2048",
    ):
        records = []
        for subsample in (1.0, 2.0, 8.0, 16.0) if name == "train-densities" else (4.0,):
            number += 1
            timing = Timing(median=float(number), minimum=1.0, spread=0.1, repeats=3)
            setting = Setting((256, 256), (128, 128), subsample, 32)
            records.append(StepCost(setting, timing, 10, (number + 50) * 1024**3, 5, 32).record(1e12))
        (folder / f"{name}.json").write_text(json.dumps({"results": records}))
    graph = {"eager_ms": 3000.0, "recorded_ms": 3001.0, "largest_difference": 3002.0}
    (folder / "graph.json").write_text(json.dumps(graph))
    (folder / "run").mkdir()
    lines = [{"step": 1, "loss": 0.9, "images_per_second": 100.0}, {"step": 2, "loss": 0.25}, {"validation_loss": 1.0}]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {tuple(row[k] for k in ("operator", "backend", "pass", "search", "scale")): row for row in results}


def test_every_figure_is_found_and_each_is_another_number(tmp_path):
    operators = write(tmp_path)
    found = {figure.what: figure.read(content(tmp_path / figure.file)) for figure in FIGURES}
    assert len(set(found.values())) == len(FIGURES)
    assert None not in found.values()
    row = operators["points_to_grid", "auto", "forward+backward", True, 1.0]
    assert found["points to grid with search, both"] == row["median_ms"]
    assert found["training step, 1/4 of the pixels"] == 2
    assert found["its peak memory"] == 52
    assert found["training step, all pixels"] == 5
    assert found["its last loss"] == 0.25
    assert found["images a second of the real training"] == 100


def content(path):
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def test_the_table_holds_what_is_there(tmp_path):
    parts = all_parts(tmp_path)
    empty = table(parts, tmp_path)
    assert empty.count("not run") == len(parts)
    assert "165 to 190" in empty
    write(tmp_path)
    full = table(parts, tmp_path)
    line = next(line for line in full.splitlines() if line.startswith("training step, 1/4"))
    assert line.split()[-6:] == ["2.00", "ms", "165", "to", "190", "60"]
    (tmp_path / "train.json").write_text("{}")
    (tmp_path / "ops.json").write_text("not JSON")
    assert "165 to 190" in table(parts, tmp_path)

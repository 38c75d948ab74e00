"""Rates of preparing and reading images."""

import json

from infdiff.benchmark.data import measure_data
from infdiff.data.prepare import Recipe
from infdiff.data.sources import open_source
from tests.conftest import assert_one_line_error


def test_every_way_is_measured(photos):
    source, seen = open_source(photos), []
    options = {"shards": [2], "workers": [1], "repeat": 1, "reading": 0.01, "on_case": lambda: seen.append(1)}
    rates = measure_data(source, Recipe((8, 8)), **options)
    assert [(rate.what, rate.shards, rate.workers) for rate in rates] == [("prepare", 2, 1), ("read", 2, 1)]
    assert len(seen) == 2
    assert all(0 < rate.least <= rate.median <= rate.most for rate in rates)


def test_the_command_prints_and_saves_rates(photos, command, monkeypatch, tmp_path):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("infdiff.benchmark.data._reading_rate", lambda store, workers, reading: 100.0 * workers)
    call = ["benchmark", "data", photos, "--size", 8, "--repeat", 1]
    result = command(*call, "--shards", "0,3", "--workers", 1, "--json", "data.json")
    assert result.returncode == 0, result.stderr
    first = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert first == ["images/s, median (least to most) of 1, 2 cores", "what", "prepare", "prepare", "read", "read"]
    assert len(json.loads((tmp_path / "data.json").read_text())["results"]) == 4
    assert_one_line_error(command(*call, "--shards", "a"), "--shards a")
    assert_one_line_error(command(*call, "--workers", "0.5"), "--workers 0.5", "whole numbers from 1 on")

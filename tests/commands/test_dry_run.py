"""`train.py --dry-run`: what it counts, and that it leaves nothing behind."""

import json
import re

import pytest

from infdiff.benchmark.dry_run import cost_of, describe
from infdiff.config.files import load_config
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID


def config(*settings):
    return load_config(CONFIG_FOLDER / "demo.yaml", settings)


def test_operations_are_those_of_a_network_counted_by_hand():
    """One level, one block down and up, two in the middle; c channels, d the width of the condition."""
    c, d, n = 6, 10, 12
    settings = ["model.grid.multipliers=[1]", "model.grid.modes=0", f"model.grid.channels={c}"]
    cost = cost_of(config(*TINY_GRID, *settings, f"model.condition_dim={d}"), (n, n))
    nine, cells = 9 * n * n, n * n
    first = 3 * c * nine  # its input wants no gradient
    taps = (
        3 * 2 * c * c * nine + (2 * c * c + c * c) * nine + 2 * c * c * cells + c * 3 * nine
    )  # blocks, up block, skip
    modulation, first_time, time = 4 * d * 2 * c, 128 * d, d * d
    # A multiply-add is two operations, and a layer does as much again for its weights and for its input.
    by_hand = 2 * (3 * (taps + modulation + time) + 2 * (first + first_time))
    assert cost.flop == by_hand


def test_costs_grow_with_the_pixels():
    settings = config(*TINY_GRID)
    small, large = cost_of(settings, (16, 16)), cost_of(settings, (32, 32))
    assert large.flop == pytest.approx(4 * small.flop, rel=0.2)
    assert large.saved_bytes == pytest.approx(4 * small.saved_bytes, rel=0.1)


def test_kept_features_are_those_of_a_network_counted_by_hand():
    """At least what every convolution reads, each number four bytes; at most a few times that."""
    c, n = 32, 24
    settings = ["model.grid.multipliers=[1]", "model.grid.modes=0", f"model.grid.channels={c}"]
    read = (3 + 3 * 2 * c + 3 * c + c) * n * n * 4
    kept = cost_of(config(*TINY_GRID, *settings), (n, n)).saved_bytes
    assert read < kept < 5 * read


@pytest.mark.parametrize("settings", [TINY, [*TINY, "model.z_dim=0", "model.grid.kind=dfu"]], ids=["latent", "plain"])
def test_networks_on_points_are_counted_too(settings):
    every, some = (cost_of(config(*settings, f"train.subsample={part}"), (16, 16)) for part in (1, 4))
    assert 0 < some.flop < every.flop
    assert some.saved_bytes < every.saved_bytes


def test_parts_of_the_model_and_every_resolution_are_described():
    lines = list(describe(config(*TINY_GRID, "data.resolutions={8: 1, 16: 1}", "data.batch_sizes={8: 9}")))
    parts = dict(re.findall(r"^  (\S+) +\S+ +([\d,]+)$", "\n".join(lines), flags=re.MULTILINE))
    numbers = {name: int(count.replace(",", "")) for name, count in parts.items()}
    assert numbers["network"] == sum(count for name, count in numbers.items() if name.startswith("network."))
    total = numbers["network"] + numbers["conditioning"]
    assert f"{total:,} parameters in all" in lines
    assert any(line.startswith("8: ") and "9 images" in line for line in lines)
    assert any(line.startswith("16: ") and "4 images" in line for line in lines)


@pytest.mark.parametrize("settings", [TINY, [*TINY_GRID, "finetune.size=24"]], ids=["points", "fine-tuning"])
def test_a_dry_run_trains_two_steps_and_leaves_nothing(command, tmp_path, settings):
    result = command("train", "--dry-run", "--out", "r", "--steps", 9, *settings)
    assert result.returncode == 0, result.stderr
    assert "parameters in all" in result.stdout
    assert "GFLOP" in result.stdout
    losses = re.findall(r"^step \d: loss ([\d.]+)", result.stdout, flags=re.MULTILINE)
    assert len(losses) == 2
    assert list(tmp_path.iterdir()) == []
    if settings is TINY:
        command("train", "--out", "r", "--steps", 2, *settings, "train.log_every=1")
        records = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
        assert [f"{r['loss']:.4f}" for r in records if "loss" in r] == losses

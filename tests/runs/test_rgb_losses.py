"""Losses of tiny RGB runs, as they were before fields: float32 sums in another order may change the last digits."""

import json

import pytest

from infdiff.config.files import load_config
from infdiff.runs.data import build_data
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID
from tests.runs.conftest import CPU

# Settings, and the losses and validation losses of the log.
RUNS = {
    "points": (TINY, [1.3544077277183533, 1.3421398401260376, 1.2701691389083862, 1.3353883028030396]),
    "flipped, sharp": (
        [*TINY, "data.flip=true", "model.sharp=true"],
        [1.1851409077644348, 1.2570085525512695, 1.1238909363746643, 1.2509887218475342],
    ),
    "edm": (TINY_GRID, [1.5196338891983032, 1.61110520362854, 1.308129370212555, 1.6101725101470947]),
    "mollified": (
        [*TINY_GRID, "edm.noise=mollified"],
        [1.5262532234191895, 1.4968852996826172, 1.3063316345214844, 1.496039867401123],
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_losses_of_rgb_runs_are_what_they_were(kind, tmp_path):
    settings, expected = RUNS[kind]
    overrides = [*settings, "train.bfloat16=false", "train.steps=4", "train.sample_every=2"]
    config = load_config(CONFIG_FOLDER / "demo.yaml", overrides)
    (tmp_path / "samples").mkdir()
    build_trainer(config, build_data(config, CPU), tmp_path, CPU).run()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [record[key] for record in records for key in ("loss", "validation_loss") if key in record]
    assert found == pytest.approx(expected, rel=1e-5)

"""Losses of tiny RGB runs, as they were before: float32 sums in another order may change the last digits.

Those with latents are of the version in which latents that grow together have no gradient.
"""

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
    "points": (TINY, [1.35439932346344, 1.342122197151184, 1.270142912864685, 1.3353880643844604]),
    "flipped, sharp": (
        [*TINY, "data.flip=true", "model.sharp=true"],
        [1.1851401329040527, 1.25688636302948, 1.123875379562378, 1.2508348226547241],
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

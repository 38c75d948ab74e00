"""The cost of generating images, stored next to them."""

import json

import pytest
import torch

from infdiff.errors import UserError
from infdiff.evaluation.generation_cost import GenerationCost, measured

CPU = torch.device("cpu")


def test_every_batch_is_recorded_and_the_first_one_is_not_timed(tmp_path):
    now = [0.0]

    def make(numbers):
        held = torch.ones(100, 1_000_000, dtype=torch.uint8)
        now[0] += 8.0 if 0 in numbers else 3.0
        return held[:1, :1].expand(len(numbers), 1)

    assert GenerationCost.read(tmp_path) is None
    call = measured(make, tmp_path, rank=0, device=CPU, weights=50_000_000, clock=lambda: now[0])
    assert call([0, 1]).shape == (2, 1)
    assert GenerationCost.read(tmp_path).seconds_per_image == 4.0  # the only one there is
    call([2, 3])
    cost = GenerationCost.read(tmp_path)
    assert cost.seconds_per_image == 1.5
    assert cost.peak_mb is None or 149 < cost.peak_mb < 190
    assert cost.device == f"CPU ({torch.get_num_threads()} threads)"


def test_processes_add_up(tmp_path):
    for rank, (seconds, peak) in enumerate([(2.0, 100.0), (6.0, 300.0)]):
        line = json.dumps({"images": 2, "seconds": seconds, "device": "a GPU", "peak_mb": peak})
        (tmp_path / f"cost-{rank}.jsonl").write_text(line + "\n")
    assert GenerationCost.read(tmp_path) == GenerationCost(2.0, 300.0, "a GPU")


@pytest.mark.parametrize("bad", ['{"images": 2, "sec', '{"images": 2}', "[1]", "\udcff"])
def test_a_record_that_is_not_whole_does_not_count(tmp_path, bad):
    """As a kill or a damaged disk leaves one."""
    line = json.dumps({"images": 2, "seconds": 3.0, "device": "a GPU", "peak_mb": 100.0})
    (tmp_path / "cost-0.jsonl").write_bytes(f"{line}\n{bad}".encode(errors="surrogateescape"))
    assert GenerationCost.read(tmp_path) == GenerationCost(1.5, 100.0, "a GPU")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    call = measured(torch.zeros, tmp_path / "gone", rank=0, device=CPU, weights=0)
    with pytest.raises(UserError, match="cannot write"):
        call([1, 2])

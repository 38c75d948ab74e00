"""Counts of steps on the meta device."""

import pytest
import torch

from infdiff.benchmark.cost import Setting
from infdiff.benchmark.counted import count_sampling, count_training
from infdiff.benchmark.dry_run import cost_of
from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID


def config_of(*overrides):
    return load_config(CONFIG_FOLDER / "demo.yaml", overrides)


def test_a_training_step_is_counted_by_part():
    config = config_of(*TINY)
    count = count_training(config, Setting((16, 16), (8, 8), 4.0, 6))
    assert list(count.parts) == ["denoiser", "encoder", "backward", "optimiser", "noise and points"]
    assert count.parameters == sum(p.numel() for m in build_modules(config).values() for p in m.parameters())
    assert count.launches == sum(part.launches for part in count.parts.values())
    assert all(part.launches > 0 and part.moved > 0 for part in count.parts.values())
    # 4 bytes, read or written: by AdamW seven times, EMA three times, clipping one and two times; and small numbers.
    assert count.parts["optimiser"].moved == pytest.approx(13 * 4 * count.parameters, rel=0.02)
    # Without a gradient of the image, and with what the draws and the mollifier take.
    dry = cost_of(config, (16, 16)).flop
    assert abs(count.flop / 6 - dry) < 0.1 * dry
    record = count.record()
    assert record["flop_per_image"] * 6 == count.flop
    assert record["parts"]["encoder"]["launches"] == count.parts["encoder"].launches
    assert record["moved_bytes"] == sum(part["moved_bytes"] for part in record["parts"].values())
    assert count.as_text().splitlines()[-4].endswith(f"{count.moved_bytes / 1e9:,.1f}")


def test_bfloat16_halves_what_a_step_keeps():
    setting = Setting((16, 16), (8, 8), 4.0, 6)
    narrow, wide = (count_training(config_of(*TINY, f"train.bfloat16={b}"), setting) for b in ("true", "false"))
    assert wide.weight_bytes == 0 < narrow.weight_bytes < 2 * narrow.parameters
    assert 0 < narrow.saved_bytes < wide.saved_bytes
    assert narrow.flop == wide.flop


def test_launches_do_not_depend_on_the_batch_but_memory_does():
    few, many = (count_training(config_of(*TINY), Setting((16, 16), (8, 8), 4.0, batch)) for batch in (4, 8))
    assert few.launches == many.launches
    assert many.saved_bytes > 1.8 * few.saved_bytes


def test_a_sampling_step_is_the_network_and_the_samplers_arithmetic():
    for config, size in ((config_of(*TINY), (16, 16)), (config_of(*TINY_GRID), (16, 16))):
        count = count_sampling(config, Setting(size, (8, 8), 1.0, 2))
        assert list(count.parts) == ["denoiser", "sampler"]
        denoiser, sampler = count.parts["denoiser"], count.parts["sampler"]
        assert denoiser.flop > 0
        assert 0 < sampler.launches < 100 < denoiser.launches
        assert 0 < sampler.moved < denoiser.moved
    assert not torch.is_autocast_enabled("cuda")

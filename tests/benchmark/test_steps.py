"""What a configuration costs: the trainer's own steps, the sampler's own steps, the batch that fits."""

from dataclasses import replace

import pytest
import torch

from infdiff.benchmark import steps
from infdiff.benchmark.cost import Setting, StepCost
from infdiff.benchmark.paper_tables import TABLES
from infdiff.benchmark.steps import at_setting, fitted_cost, plan_sampling, plan_table, plan_training
from infdiff.benchmark.timing import WARM_UP_STEPS, Timing
from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.shipped import CONFIG_FOLDER
from infdiff.training.trainer import Trainer
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture
def config():
    return load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "train.accumulate=2"])


def test_what_is_timed_is_the_trainers_own_step(config, monkeypatch):
    done, step = [], Trainer.train_step

    def counted(trainer, batches):
        watched = [trainer.modules["denoiser"].project.bias, trainer.ema.modules["denoiser"].project.bias]
        before = [bias.detach().clone() for bias in watched]
        out = step(trainer, batches)
        moved, averaged = (bool((bias != old).any()) for bias, old in zip(watched, before, strict=True))
        done.append((trainer.step, moved, averaged))
        return out

    monkeypatch.setattr(Trainer, "train_step", counted)
    (setting,) = plan_training(config, CPU, 3).settings
    cost = steps.training_cost(config, setting, CPU, 3)
    # The last one is the one whose FLOP are counted.
    assert [number for number, _, _ in done] == list(range(1, WARM_UP_STEPS + 3 + 2))
    assert all(moved and averaged for _, moved, averaged in done)
    assert (cost.images, cost.timing.repeats, cost.setting) == (8, 3, setting)
    assert cost.flop > 0


def test_sampling_steps_are_those_of_the_sampler_on_all_pixels(config):
    plan = plan_sampling(config, CPU, 4, sizes=[(16, 16), (32, 16)], batch=3)
    one, two = plan.run()
    assert (one.images, one.steps_per_image, one.timing.repeats) == (3, config.sample.steps, 4)
    assert one.setting.subsample == 1
    # Twice the pixels, the same grid.
    assert one.flop < two.flop < 3 * one.flop
    assert one.images_per_second == pytest.approx(3 / (config.sample.steps * one.timing.median / 1000))
    with pytest.raises(UserError, match=r"diffusion.steps: 2"):
        plan_sampling(
            load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "diffusion.steps=2", "sample.steps=1"]), CPU, 4
        ).run()


def test_a_sweep_keeps_the_grids_part_of_the_size(config):
    plan = plan_training(config, CPU, 1, sizes=[(16, 16), (32, 48)], subsamples=[1, 4], batch=3)
    assert [(s.size, s.grid, s.subsample, s.batch) for s in plan.settings] == [
        ((16, 16), (8, 8), 1, 3),
        ((16, 16), (8, 8), 4, 3),
        ((32, 48), (16, 24), 1, 3),
        ((32, 48), (16, 24), 4, 3),
    ]
    changed = at_setting(config, plan.settings[3])
    assert (changed.data.size, changed.model.grid_size, changed.train.subsample) == ("32x48", "16x24", 4)


def test_networks_on_whole_images_are_measured_at_each_size_that_they_train_on():
    path = CONFIG_FOLDER / "dfu_landscapes_64.yaml"
    small = ["data.resolutions={8: 1, 16: 1}", "data.batch_sizes={8: 3}", "data.size=16", "train.batch_size=2"]
    config = load_config(path, [*small, "model.grid.channels=8", "model.grid.modes=4", "model.grid.factor_rank=2"])
    plan = plan_training(config, CPU, 2)
    assert [(s.size, s.grid, s.batch) for s in plan.settings] == [((8, 8), (8, 8), 3), ((16, 16), (16, 16), 2)]
    few, many = plan.run()
    assert 0 < few.flop / 3 < many.flop / 2
    (one,) = plan_sampling(config, CPU, 2, batch=1).run()
    assert one.steps_per_image == 2 * config.sample.steps - 1


def test_the_memory_of_a_batch_decides_how_large_it_is(config, monkeypatch):
    tried = []

    def cost(config, setting, device, repeat):
        tried.append(setting.batch)
        # Fixed, a part for each image, and more for each image of a large batch.
        peak = 100_000_000 + 7_000_000 * setting.batch + 10_000 * setting.batch**2
        return StepCost(setting, Timing(1.0, 1.0, 0.0, 2), 1, peak, 1, setting.batch)

    monkeypatch.setattr(steps, "training_cost", cost)
    setting = Setting((16, 16), (8, 8), 4.0, 0)
    found = fitted_cost(config, setting, CPU, 2, 1_000_000_000)
    assert found.peak_bytes <= 1_000_000_000
    assert cost(config, replace(setting, batch=found.setting.batch * 12 // 10), CPU, 2).peak_bytes > 1_000_000_000
    assert len(tried) <= 8
    assert fitted_cost(config, setting, CPU, 2, 114_100_000).setting.batch == 2
    assert fitted_cost(config, setting, CPU, 2, 100_000_000) is None


def test_a_setting_that_the_device_cannot_hold_is_left_out(config, monkeypatch):
    cost = steps.training_cost

    def full(config, setting, *others):
        if setting.batch == 64:
            raise torch.OutOfMemoryError("too much")
        return cost(config, setting, *others)

    monkeypatch.setattr(steps, "training_cost", full)
    assert plan_training(config, CPU, 1, subsamples=[1, 2], batch=64).run() == [None, None]
    assert plan_training(config, CPU, 1, batch=2).run()[0].flop > 0


def test_settings_that_cannot_work_are_named_before_anything_is_measured(config):
    small = at_setting(config, Setting((8, 8), (4, 4), 1.0, 1))
    with pytest.raises(UserError, match=r"16 images of 4, grid 1, 1/1: model.grid_size: 1 is too small"):
        plan_table(TABLES[5], small, CPU, 1, batch=None, budget=None)
    with pytest.raises(UserError, match=r"^budget: 3: .*--table 4"):
        plan_table(TABLES[5], config, CPU, 1, batch=None, budget=3.0)
    with pytest.raises(UserError, match=r"1/999: train.subsample: 999 leaves no point"):
        plan_training(config, CPU, 1, subsamples=[999])


def test_the_same_points_of_any_size_are_one_grid_and_one_width_of_T(config, monkeypatch):
    widths = []
    real = steps.build_trainer

    def built(config, *others):
        widths.append((config.data.size, config.diffusion.sigma))
        return real(config, *others)

    monkeypatch.setattr(steps, "build_trainer", built)
    plan = plan_training(config, CPU, 2, sizes=[(16, 16), (32, 32)], batch=2, points=8)
    assert [(setting.size, setting.grid, setting.subsample) for setting in plan.settings] == [
        ((16, 16), (8, 8), 32.0),
        ((32, 32), (8, 8), 128.0),
    ]
    assert all(cost is not None for cost in plan.run())
    assert widths[-1][1] == pytest.approx(2 * widths[-2][1])
